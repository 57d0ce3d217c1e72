/* A map as a drawing: a field of cells for each context, and its kinds beside it. */
#include <inttypes.h>
#include <string.h>

#include "daemon/cli/map.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"

#define CELL_WIDTH	4u
#define CELL_HEIGHT	8u
#define MARGIN		16u
#define LINE		18u
#define FIELD_WIDTH	(MAP_SVG_COLUMNS * CELL_WIDTH)
#define FIELD_HEIGHT	(MAP_SVG_ROWS * CELL_HEIGHT)

/* TEXT, escaped for terminals already, as XML. */
static void put_text(const char *text)
{
	static const struct {
		char c;
		const char *entity;
	} entities[] = { { '&', "&amp;" }, { '<', "&lt;" }, { '>', "&gt;" } };

	for (; *text; text++) {
		size_t i = 0;

		while (i < ARRAY_SIZE(entities) && entities[i].c != *text)
			i++;
		if (i < ARRAY_SIZE(entities))
			fputs(entities[i].entity, stdout);
		else
			putchar(*text);
	}
}

static void text_at(unsigned x, unsigned y, const char *text)
{
	printf("<text x=\"%u\" y=\"%u\">", x, y);
	put_text(text);
	puts("</text>");
}

static void escaped_at(unsigned x, unsigned y, const char *text)
{
	char safe[CLI_TEXT_MAX];

	text_at(x, y, escape_text(safe, sizeof(safe), text, strlen(text)));
}

/* The share of the most frequent kind, in tenths, is how dark a cell is. */
static int cell_look(const struct map_context *c, size_t cell, unsigned *ret_tenths)
{
	unsigned percent = 0;
	int kind = map_cell(c, cell, &percent);

	*ret_tenths = (percent + 5) / 10;
	return kind;
}

static void print_row(const struct map_context *c, size_t first, size_t end, unsigned y)
{
	for (size_t i = first, next; i < end; i = next) {
		unsigned tenths, other;
		int kind = cell_look(c, i, &tenths);

		for (next = i + 1; next < end && cell_look(c, next, &other) == kind &&
		     other == tenths; next++)
			;
		if (kind < 0)
			continue;
		printf("<rect x=\"%zu\" y=\"%u\" width=\"%zu\" height=\"%u\" fill=\"%s\"",
		       MARGIN + (i - first) * CELL_WIDTH, y, (next - i) * CELL_WIDTH,
		       CELL_HEIGHT, map_look(c, (size_t)kind).svg);
		if (tenths < 10)
			printf(" fill-opacity=\"0.%u\"", tenths);
		puts("/>");
	}
}

static unsigned print_kinds(const struct map *m, const struct map_context *c, unsigned y)
{
	for (size_t i = 0; i < c->n_kinds; i++, y += LINE) {
		const struct map_kind *k = &c->kinds[i];
		struct map_look look = map_look(c, i);
		char text[128], human[FORMAT_MAX];

		printf("<rect x=\"%u\" y=\"%u\" width=\"10\" height=\"10\" fill=\"%s\"/>\n",
		       MARGIN, y - 10, look.svg);
		snprintf(text, sizeof(text), "%s: %s, %.1f %%, extents: %" PRIu64, look.name,
			 format_size(human, k->bytes),
			 (double)k->bytes * 100 / (double)m->size, k->extents);
		text_at(MARGIN + LINE, y, text);
	}
	return y;
}

/* Returns where the next one is to begin. */
static unsigned print_context(const struct map *m, const struct map_context *c, unsigned y)
{
	escaped_at(MARGIN, y, c->name);
	y += LINE / 2;
	for (size_t row = 0; row * MAP_SVG_COLUMNS < m->n_cells; row++, y += CELL_HEIGHT)
		print_row(c, row * MAP_SVG_COLUMNS,
			  MIN((row + 1) * MAP_SVG_COLUMNS, m->n_cells), y);
	return print_kinds(m, c, y + LINE) + LINE;
}

void map_svg_print(const struct map *m)
{
	unsigned height = MARGIN + 2 * LINE, y = MARGIN + LINE;
	char text[CLI_TEXT_MAX + FORMAT_MAX], uri[CLI_TEXT_MAX], human[FORMAT_MAX];

	for (size_t i = 0; i < m->n_contexts; i++)
		height += FIELD_HEIGHT + LINE * (4 + (unsigned)m->contexts[i].n_kinds);
	printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
	       "font-family=\"sans-serif\" font-size=\"13\">\n"
	       "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
	       FIELD_WIDTH + 2 * MARGIN, height);
	snprintf(text, sizeof(text), "%s: %s",
		 escape_text(uri, sizeof(uri), m->uri, strlen(m->uri)),
		 format_size(human, m->size));
	text_at(MARGIN, y, text);
	for (size_t i = 0; m->size && i < m->n_contexts; i++)
		y = print_context(m, &m->contexts[i], y + 2 * LINE);
	puts("</svg>");
}
