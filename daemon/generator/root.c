/* What the system runs from on devices of nbdd: no file of it can be read while one of them is
 * away, and nothing that still runs could do without.  The scripts of the initramfs leave a
 * mark; and the block device that / or /usr is on may be one of nbd, a partition of one, or be
 * made of one (LVM, LUKS, RAID). */
#include <unistd.h>

#include "daemon/generator/generator.h"
#include "lib/util/disks.h"

void generator_add_root(const char *name, void *userdata)
{
	struct generator *g = userdata;
	unsigned index;

	if (conf_parse_device(name, &index) == 0 && g->n_roots < ROOTS_MAX &&
	    !generator_is_root(g, (int)index))
		g->roots[g->n_roots++] = (int)index;
}

void generator_find_roots(struct generator *g)
{
	static const char *const places[] = { "/", "/usr" };

	if (g->root_device)
		disks_of_device(g->sys, g->root_device, generator_add_root, g);
	for (size_t i = 0; i < ARRAY_SIZE(places) && !g->root_device; i++)
		disks_of_mount(g->sys, places[i], generator_add_root, g);
}

bool generator_is_root(const struct generator *g, int index)
{
	for (size_t i = 0; i < g->n_roots; i++)
		if (g->roots[i] == index)
			return true;
	return false;
}

bool generator_root_is_ours(const struct generator *g)
{
	return g->n_roots || access(g->mark, F_OK) == 0;
}
