/* Text in aligned columns; private to daemon/cli. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct table_column {
	const char *head;
	bool right;			/* align to the right */
	unsigned shrink;		/* may be cut to this many columns; 0: never */
	const char *(*colour)(const char *text);	/* escape sequence for a cell */
};

struct table;

struct table *table_new(const struct table_column *columns, size_t n_columns);
void table_free(struct table *t);
/* Add a row of as many cells as there are columns; a NOTE, if not NULL, is printed
 * indented below it. */
void table_add(struct table *t, const char *const *cells, const char *note);
/* TEXT in WIDTH columns: cut, or filled up with blanks. */
void table_print_cell(FILE *out, const char *text, unsigned width, bool right);
/* WIDTH: columns to fit into, 0: as wide as need be. */
void table_print(const struct table *t, FILE *out, unsigned width, bool colour);
