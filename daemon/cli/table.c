#include "daemon/cli/table.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "daemon/cli/cli.h"

#define GAP 2			/* blanks between two columns */

struct table {
	const struct table_column *columns;
	size_t n_columns, n_rows;
	char **cells;
	char **notes;
};

struct table *table_new(const struct table_column *columns, size_t n_columns)
{
	struct table *t = cli_must(calloc(1, sizeof(*t)));

	t->columns = columns;
	t->n_columns = n_columns;
	return t;
}

void table_free(struct table *t)
{
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
		free(t->cells[i]);
	for (size_t i = 0; i < t->n_rows; i++)
		free(t->notes[i]);
	free(t->cells);
	free(t->notes);
	free(t);
}

void table_add(struct table *t, const char *const *cells, const char *note)
{
	size_t n = t->n_columns, at = t->n_rows * n;

	t->cells = cli_must(reallocarray(t->cells, at + n, sizeof(*t->cells)));
	t->notes = cli_must(reallocarray(t->notes, t->n_rows + 1, sizeof(*t->notes)));
	for (size_t i = 0; i < n; i++)
		t->cells[at + i] = cli_must(strdup(cells[i]));
	t->notes[t->n_rows++] = note && *note ? cli_must(strdup(note)) : NULL;
}

/* Bytes of the character at P, and the columns that it takes; the locale is UTF-8. */
static size_t next_character(const char *p, unsigned *ret_columns)
{
	wchar_t c;
	size_t n = mbrtowc(&c, p, MB_CUR_MAX, &(mbstate_t){ 0 });
	int columns;

	if (n == 0 || n > MB_CUR_MAX) {
		*ret_columns = 1;
		return 1;
	}
	columns = wcwidth(c);
	*ret_columns = columns < 0 ? 1 : (unsigned)columns;
	return n;
}

static unsigned text_width(const char *text)
{
	unsigned width = 0, columns;

	while (*text) {
		text += next_character(text, &columns);
		width += columns;
	}
	return width;
}

/* Print TEXT in WIDTH columns: cut, or filled up on one side. */
static void print_fitting(FILE *out, const char *text, unsigned width, bool right, bool last)
{
	unsigned full = text_width(text), used = 0, columns;
	bool cut = full > width;
	unsigned room = cut && width > 3 ? width - 3 : width;

	if (right && !cut)
		fprintf(out, "%*s", (int)(width - full), "");
	while (*text) {
		size_t n = next_character(text, &columns);

		if (used + columns > room)
			break;
		fwrite(text, 1, n, out);
		used += columns;
		text += n;
	}
	if (cut && width > 3) {
		fputs("...", out);
		used += 3;
	}
	if (!right && !last)
		fprintf(out, "%*s", (int)(width - used), "");
}

void table_print_cell(FILE *out, const char *text, unsigned width, bool right)
{
	print_fitting(out, text, width, right, false);
}

static void measure(const struct table *t, unsigned *widths)
{
	for (size_t c = 0; c < t->n_columns; c++)
		widths[c] = text_width(t->columns[c].head);
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++) {
		unsigned *w = &widths[i % t->n_columns];

		*w = MAX(*w, text_width(t->cells[i]));
	}
}

/* Take columns from the widest that may shrink until the row fits into WIDTH. */
static void shrink(const struct table *t, unsigned *widths, unsigned width)
{
	unsigned sum = 0;

	for (size_t c = 0; c < t->n_columns; c++)
		sum += widths[c] + (c ? GAP : 0);
	while (sum > width) {
		unsigned *widest = NULL;

		for (size_t c = 0; c < t->n_columns; c++)
			if (t->columns[c].shrink && widths[c] > t->columns[c].shrink &&
			    (!widest || widths[c] > *widest))
				widest = &widths[c];
		if (!widest)
			return;
		--*widest;
		--sum;
	}
}

static void print_row(const struct table *t, FILE *out, const unsigned *widths,
		      char *const *cells, bool colour)
{
	for (size_t c = 0; c < t->n_columns; c++) {
		const struct table_column *column = &t->columns[c];
		const char *text = cells ? cells[c] : column->head;
		const char *paint = colour && cells && column->colour ?
			column->colour(text) : "";

		fprintf(out, "%*s%s", c ? GAP : 0, "", paint);
		print_fitting(out, text, widths[c], column->right, c + 1 == t->n_columns);
		fputs(*paint ? "\033[m" : "", out);
	}
	fputc('\n', out);
}

void table_print(const struct table *t, FILE *out, unsigned width, bool colour)
{
	unsigned *widths = cli_must(calloc(t->n_columns, sizeof(*widths)));

	measure(t, widths);
	if (width)
		shrink(t, widths, width);
	print_row(t, out, widths, NULL, false);
	for (size_t r = 0; r < t->n_rows; r++) {
		print_row(t, out, widths, t->cells + r * t->n_columns, colour);
		if (!t->notes[r])
			continue;
		fputs("    ", out);
		print_fitting(out, t->notes[r], width ? MAX(width, 20u) - 4 :
			      text_width(t->notes[r]), false, true);
		fputc('\n', out);
	}
	free(widths);
}
