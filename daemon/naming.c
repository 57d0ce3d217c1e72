/* A device's number, name and identifier. */
#include "daemon/naming.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/manager.h"
#include "daemon/save.h"
#include "daemon/status.h"
#include "lib/util/clock.h"

static uint64_t random_number(void)
{
	uint64_t n;

	/* Before the kernel's generator is ready, the time is as good as any. */
	if (getrandom(&n, sizeof(n), GRND_NONBLOCK) != sizeof(n))
		n = clock_usec(CLOCK_REALTIME);
	return n;
}

void device_give_name(struct device *d, const char *name)
{
	snprintf(d->name, sizeof(d->name), "%s", name);
	if (d->keys.identifier)
		snprintf(d->identifier, sizeof(d->identifier), "%s", d->keys.identifier);
	else
		snprintf(d->identifier, sizeof(d->identifier), DEVICE_IDENTIFIER_PREFIX
			 "%s:%016llx", name, (unsigned long long)random_number());
}

void device_node_name(int index, char name[static DEVICE_NODE_MAX])
{
	snprintf(name, DEVICE_NODE_MAX, "nbd%d", index);
}

bool device_index_is_guess(const struct device *d)
{
	return d->state == STATE_CONNECTING && !d->index_fixed;
}

void device_renumber(struct device *d, int index)
{
	char before[DEVICE_NODE_MAX], name[DEVICE_NODE_MAX];

	device_node_name(d->index, before);
	device_node_name(index, name);
	d->index = index;
	if (strcmp(d->name, before) != 0)
		return;
	save_forget(d);
	device_give_name(d, name);
	status_renamed(d->manager, before, name);
}
