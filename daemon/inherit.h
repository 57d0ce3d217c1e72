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
void inherited_close(struct inherited *i);
