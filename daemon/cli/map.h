/* map: what an export's blocks are, in each of its meta contexts; private to daemon/cli.
 *
 * Extents are counted by kind and into the cells of a picture as they come, and then
 * forgotten, so that the memory does not depend on their number. */
#pragma once

#include "daemon/cli/cli.h"

#define MAP_CONTEXTS_MAX	16
#define MAP_KINDS_MAX		12	/* different flags in a context; the last: all others */
#define MAP_NAME_MAX		32

/* Extents with the same flags. */
struct map_kind {
	uint64_t flags, bytes, extents;
};

struct map_run {
	uint64_t start, length, flags;
};

struct map_context {
	char *name;			/* as the server has it */
	struct map_run run;		/* the last extent, which may go on */
	size_t n_kinds;
	struct map_kind kinds[MAP_KINDS_MAX];
	uint64_t (*cells)[MAP_KINDS_MAX];	/* bytes of each kind in each cell */
};

struct map {
	const char *uri;
	uint64_t size;
	uint64_t extents;		/* seen, of all contexts */
	size_t n_cells, n_contexts;
	struct map_context contexts[MAP_CONTEXTS_MAX];
	/* Told of every extent that is complete; or NULL. */
	void (*told)(const struct map_context *c, void *userdata);
	void *userdata;
};

/* How a kind is shown. */
struct map_look {
	char name[MAP_NAME_MAX];
	const char *glyph;		/* one column */
	const char *colour;		/* escape sequence */
	const char *svg;		/* colour */
};

/* map_extents.c */
void map_init(struct map *m, uint64_t size, size_t n_cells);
void map_deinit(struct map *m);
/* The context, added unless there are too many: then NULL. */
struct map_context *map_add_context(struct map *m, const char *name);
struct map_context *map_find_context(struct map *m, const char *name);
/* Up to where the context is described. */
uint64_t map_end(const struct map_context *c);
/* The next extent of C: what is known already and what lies beyond the export is cut. */
void map_add_extent(struct map *m, struct map_context *c, uint64_t start, uint64_t length,
		    uint64_t flags);
/* All extents are in. */
void map_finish(struct map *m);
/* The kind that most bytes of a cell are of and, in RET_PERCENT, how many; -1: none. */
int map_cell(const struct map_context *c, size_t cell, unsigned *ret_percent);
/* Where a cell begins. */
uint64_t map_cell_start(const struct map *m, size_t cell);

/* map_look.c: kind number KIND of C. */
struct map_look map_look(const struct map_context *c, size_t kind);

/* map_text.c, map_svg.c, map_json.c: write a finished map to stdout. */
#define MAP_ROWS	8
/* Cells in a row of a terminal of WIDTH columns. */
unsigned map_text_columns(unsigned width);
void map_text_print(const struct map *m, unsigned width, bool colour);

#define MAP_SVG_COLUMNS	256
#define MAP_SVG_ROWS	32
void map_svg_print(const struct map *m);

/* The beginning of the object, each extent, and the rest of it. */
void map_json_begin(struct map *m);
void map_json_end(const struct map *m, bool complete);
