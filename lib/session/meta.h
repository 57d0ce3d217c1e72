/* Metadata contexts ("Metadata querying"): those the user wants, those negotiated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util/macro.h"

struct nbd_handle;

struct meta_context {
	uint32_t id;
	char *name;
};

struct meta {
	char **wanted;
	size_t n_wanted;
	struct meta_context *selected;
	size_t n_selected;
	bool valid;		/* the server answered NBD_OPT_SET_META_CONTEXT for this export */
};

/* 0 or -ENOMEM. */
_must_check_ int meta_want(struct meta *m, const char *name);
void meta_want_nothing(struct meta *m);

/* Record a selected context, NAME not terminated.  0, -ENOMEM, -EEXIST for an id that was
 * given out already, -E2BIG. */
_must_check_ int meta_select(struct meta *m, uint32_t id, const char *name, size_t len);
void meta_select_nothing(struct meta *m);

const struct meta_context *meta_by_id(const struct meta *m, uint32_t id);
const struct meta_context *meta_by_name(const struct meta *m, const char *name);

void meta_clear(struct meta *m);
