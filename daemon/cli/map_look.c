/* What the flags of a meta context mean, and how that looks. */
#include <inttypes.h>
#include <string.h>

#include "daemon/cli/map.h"

#define RED	"\033[31m"
#define GREEN	"\033[32m"
#define YELLOW	"\033[33m"
#define BLUE	"\033[34m"
#define CYAN	"\033[36m"
#define FAINT	"\033[2m"

/* NBD protocol, "Metadata querying", and QEMU's docs/interop/nbd.txt. */
static const struct known {
	const char *context;		/* or what it begins with, up to a colon */
	uint64_t flags;
	const char *name, *glyph, *colour, *svg;
} known[] = {
	{ "base:allocation", 0, "data", "█", GREEN, "#2a7f3f" },
	{ "base:allocation", 1, "hole", "░", CYAN, "#9fc5c9" },
	{ "base:allocation", 2, "zero", "▒", YELLOW, "#d9c27a" },
	{ "base:allocation", 3, "hole, reads as zero", "·", FAINT, "#e6e6e6" },
	{ "qemu:dirty-bitmap:", 0, "clean", "·", FAINT, "#e6e6e6" },
	{ "qemu:dirty-bitmap:", 1, "dirty", "█", RED, "#b03a2e" },
	{ "qemu:allocation-depth", 0, "not allocated", "·", FAINT, "#e6e6e6" },
	{ "qemu:allocation-depth", 1, "in this image", "█", GREEN, "#2a7f3f" },
	{ "qemu:allocation-depth", 2, "in its backing file", "▒", YELLOW, "#d9c27a" },
};

/* For flags that nobody knows, by the kind's number. */
static const struct {
	const char *glyph, *colour, *svg;
} others[MAP_KINDS_MAX] = {
	{ "a", GREEN, "#2a7f3f" }, { "b", YELLOW, "#d9c27a" }, { "c", BLUE, "#3b6ea5" },
	{ "d", RED, "#b03a2e" }, { "e", CYAN, "#9fc5c9" }, { "f", GREEN, "#7bb661" },
	{ "g", YELLOW, "#c98f2b" }, { "h", BLUE, "#7f6bb0" }, { "i", RED, "#d98880" },
	{ "j", CYAN, "#5f9ea0" }, { "k", GREEN, "#9aa84f" }, { "l", FAINT, "#999999" },
};

static bool is_of(const char *name, const struct known *k)
{
	size_t n = strlen(k->context);

	return k->context[n - 1] == ':' ? strncmp(name, k->context, n) == 0
					: strcmp(name, k->context) == 0;
}

struct map_look map_look(const struct map_context *c, size_t kind)
{
	uint64_t flags = c->kinds[kind].flags;
	struct map_look look = { .glyph = others[kind].glyph, .colour = others[kind].colour,
				 .svg = others[kind].svg };

	for (size_t i = 0; i < ARRAY_SIZE(known) && kind < MAP_KINDS_MAX - 1; i++) {
		const struct known *k = &known[i];

		if (k->flags != flags || !is_of(c->name, k))
			continue;
		look = (struct map_look){ .glyph = k->glyph, .colour = k->colour,
					  .svg = k->svg };
		snprintf(look.name, sizeof(look.name), "%s", k->name);
		return look;
	}
	if (kind == MAP_KINDS_MAX - 1)
		snprintf(look.name, sizeof(look.name), "other flags");
	else if (strcmp(c->name, "qemu:allocation-depth") == 0)
		snprintf(look.name, sizeof(look.name), "depth %" PRIu64, flags);
	else
		snprintf(look.name, sizeof(look.name), "flags 0x%" PRIx64, flags);
	return look;
}
