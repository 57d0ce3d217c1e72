/* Extents, counted. */
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/map.h"

#define CELL_MIN	512	/* bytes; a smaller part of an export is of no interest */

void map_init(struct map *m, uint64_t size, size_t n_cells)
{
	uint64_t most = MAX(size / CELL_MIN, UINT64_C(1));

	m->size = size;
	m->n_cells = MIN((uint64_t)n_cells, most);
}

void map_deinit(struct map *m)
{
	for (size_t i = 0; i < m->n_contexts; i++) {
		free(m->contexts[i].name);
		free(m->contexts[i].cells);
	}
	m->n_contexts = 0;
}

struct map_context *map_find_context(struct map *m, const char *name)
{
	for (size_t i = 0; i < m->n_contexts; i++)
		if (strcmp(m->contexts[i].name, name) == 0)
			return &m->contexts[i];
	return NULL;
}

struct map_context *map_add_context(struct map *m, const char *name)
{
	struct map_context *c = map_find_context(m, name);

	if (c || m->n_contexts == MAP_CONTEXTS_MAX)
		return c;
	c = &m->contexts[m->n_contexts++];
	c->name = cli_must(strdup(name));
	return c;
}

uint64_t map_end(const struct map_context *c)
{
	return c->run.start + c->run.length;
}

uint64_t map_cell_start(const struct map *m, size_t cell)
{
	return (uint64_t)((unsigned __int128)m->size * cell / m->n_cells);
}

static size_t cell_of(const struct map *m, uint64_t offset)
{
	size_t cell = (size_t)((unsigned __int128)offset * m->n_cells / m->size);

	/* Both divisions round down: the cell may begin after the offset. */
	while (cell + 1 < m->n_cells && map_cell_start(m, cell + 1) <= offset)
		cell++;
	return cell;
}

static size_t kind_of(struct map_context *c, uint64_t flags)
{
	size_t i = 0;

	while (i < c->n_kinds && i < MAP_KINDS_MAX - 1 && c->kinds[i].flags != flags)
		i++;
	if (i == c->n_kinds)
		c->kinds[c->n_kinds++].flags = flags;
	return i;
}

static void count_cells(const struct map *m, struct map_context *c, size_t kind,
			uint64_t start, uint64_t end)
{
	if (!c->cells)
		c->cells = cli_must(calloc(m->n_cells, sizeof(*c->cells)));
	for (size_t cell = cell_of(m, start); start < end; cell++) {
		uint64_t next = MIN(map_cell_start(m, cell + 1), end);

		c->cells[cell][kind] += next - start;
		start = next;
	}
}

/* The run is complete. */
static void end_run(struct map *m, struct map_context *c)
{
	if (c->run.length && m->told)
		m->told(c, m->userdata);
}

void map_add_extent(struct map *m, struct map_context *c, uint64_t start, uint64_t length,
		    uint64_t flags)
{
	uint64_t from = MAX(start, map_end(c)), end;
	size_t kind;

	if (__builtin_add_overflow(start, length, &end) || end > m->size)
		end = m->size;
	if (end <= from)
		return;
	kind = kind_of(c, flags);
	c->kinds[kind].bytes += end - from;
	count_cells(m, c, kind, from, end);
	if (c->run.length && c->run.flags == flags) {
		c->run.length += end - from;
		return;
	}
	end_run(m, c);
	c->run = (struct map_run){ from, end - from, flags };
	c->kinds[kind].extents++;
	m->extents++;
}

void map_finish(struct map *m)
{
	for (size_t i = 0; i < m->n_contexts; i++)
		end_run(m, &m->contexts[i]);
}

int map_cell(const struct map_context *c, size_t cell, unsigned *ret_percent)
{
	uint64_t total = 0;
	size_t most = 0;

	if (!c->cells)
		return -1;
	for (size_t i = 0; i < c->n_kinds; i++) {
		total += c->cells[cell][i];
		if (c->cells[cell][i] > c->cells[cell][most])
			most = i;
	}
	if (!total)
		return -1;
	*ret_percent = (unsigned)((unsigned __int128)c->cells[cell][most] * 100 / total);
	return (int)most;
}
