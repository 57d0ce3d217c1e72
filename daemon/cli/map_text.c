/* A map for people: a picture of each context, and its kinds with their sizes. */
#include <inttypes.h>
#include <string.h>

#include "daemon/cli/map.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"

#define LABEL_COLUMNS	11		/* `1023.9 GiB ` */
#define WIDTH_USUAL	80u
#define WIDTH_MIN	32u
#define WIDTH_MAX	1000u
#define PURE_PERCENT	90		/* a cell of less of one kind is mixed */
#define MIXED		"▚"
#define EMPTY		"·"		/* the glyph of what is not there */
#define NOT_EMPTY	"▖"		/* a little else is */

static unsigned usable(unsigned width)
{
	if (!width)
		return WIDTH_USUAL;
	return width < WIDTH_MIN ? WIDTH_MIN : MIN(width, WIDTH_MAX);
}

unsigned map_text_columns(unsigned width)
{
	return usable(width) - LABEL_COLUMNS;
}

/* What a cell looks like: as what most of it is, unless that hides what matters. */
static struct map_look cell_look(const struct map_context *c, size_t cell)
{
	unsigned percent = 0;
	int kind = map_cell(c, cell, &percent);
	struct map_look look = { .glyph = " ", .colour = "" };

	if (kind < 0)
		return look;
	look = map_look(c, (size_t)kind);
	if (percent < PURE_PERCENT)
		look.glyph = MIXED;
	else if (percent < 100 && strcmp(look.glyph, EMPTY) == 0)
		look.glyph = NOT_EMPTY;
	return look;
}

static void print_cell(const struct map_context *c, size_t cell, bool colour)
{
	struct map_look look = cell_look(c, cell);

	if (colour && *look.colour)
		printf("%s%s\033[m", look.colour, look.glyph);
	else
		fputs(look.glyph, stdout);
}

static void print_picture(const struct map *m, const struct map_context *c, unsigned columns,
			  bool colour)
{
	char human[FORMAT_MAX];

	for (size_t row = 0; row * columns < m->n_cells; row++) {
		size_t first = row * columns, end = MIN(first + columns, m->n_cells);

		printf("%*s ", LABEL_COLUMNS - 1, format_size(human, map_cell_start(m, first)));
		for (size_t i = first; i < end; i++)
			print_cell(c, i, colour);
		putchar('\n');
	}
}

/* Does any cell look so? */
static bool occurs(const struct map *m, const struct map_context *c, const char *glyph)
{
	for (size_t i = 0; i < m->n_cells; i++)
		if (strcmp(cell_look(c, i).glyph, glyph) == 0)
			return true;
	return false;
}

static void print_kind(const struct map *m, const struct map_context *c, size_t i, bool colour)
{
	const struct map_kind *k = &c->kinds[i];
	struct map_look look = map_look(c, i);
	char human[FORMAT_MAX];

	printf("  %s%s%s %-20s %11s %5.1f %% %9" PRIu64 " %s\n", colour ? look.colour : "",
	       look.glyph, colour ? "\033[m" : "", look.name, format_size(human, k->bytes),
	       (double)k->bytes * 100 / (double)m->size, k->extents,
	       k->extents == 1 ? "extent" : "extents");
}

static void print_context(const struct map *m, const struct map_context *c, unsigned width,
			  bool colour)
{
	char name[CLI_TEXT_MAX];

	escape_text(name, MIN((size_t)usable(width) + 1, sizeof(name)), c->name,
		    strlen(c->name));
	printf("\n%s\n", name);
	print_picture(m, c, map_text_columns(width), colour);
	for (size_t i = 0; i < c->n_kinds; i++)
		print_kind(m, c, i, colour);
	if (occurs(m, c, MIXED))
		puts("  " MIXED " of several kinds");
	if (occurs(m, c, NOT_EMPTY))
		puts("  " NOT_EMPTY " a little of another kind");
}

void map_text_print(const struct map *m, unsigned width, bool colour)
{
	char uri[CLI_TEXT_MAX], human[FORMAT_MAX];

	escape_text(uri, sizeof(uri), m->uri, strlen(m->uri));
	printf("%s: %s\n", uri, format_size(human, m->size));
	for (size_t i = 0; m->size && i < m->n_contexts; i++)
		print_context(m, &m->contexts[i], width, colour);
}
