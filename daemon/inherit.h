/* Descriptors that an nbdd has of others at its start. */
#pragma once

#include "daemon/adopt.h"

struct inherited {
	int listen;			/* the control socket, or -1 */
	int genl;			/* of an earlier nbdd's kernel worker, or -1 */
	struct adopt_fds links;
	bool handed_over;		/* by an nbdd that still runs */
};

#define INHERITED_NULL ((struct inherited){ .listen = -1, .genl = -1 })

/* What systemd passes: a socket to listen on, and what stood in the store. */
int inherit_from_systemd(struct inherited *ret);
/* What systemd passes, FROM, goes to what an nbdd has handed over, INTO: its links, of which each
 * is known by its inode; its socket to listen on in the place of the other, for when systemd has
 * bound the path anew, it leads to that one; and its socket of netlink where there is no other.
 * FROM keeps the rest. */
void inherited_merge(struct inherited *into, struct inherited *from);
void inherited_close(struct inherited *i);
