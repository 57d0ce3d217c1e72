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
/* INTO gets the links of FROM, too, of which each is known by its inode; and its socket to
 * listen on in the place of its own, for when systemd has bound the path anew, it leads to
 * that one.  FROM keeps the rest. */
void inherited_merge(struct inherited *into, struct inherited *from);
void inherited_close(struct inherited *i);
