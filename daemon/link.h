/* One connection of a device: its connector, our duplicate of its socket, the watch. */
#pragma once

#include "daemon/device.h"

/* Start a connector for an idle link: 0, -EAGAIN (no free connector: manager_kick comes
 * back to it), or -errno.  Its end is an EV_SOCKET or EV_FAILED. */
_must_check_ int link_connect(struct link *l);
/* The kernel has it: ALIVE, and watched for hang-up, which is an EV_LINK_DEAD. */
void link_alive(struct link *l);
/* Close, cancel, forget: back to IDLE. */
void link_reset(struct link *l);
/* Has the socket hung up, whatever the watch knows of it yet? */
bool link_hung_up(const struct link *l);
/* Make a live connection die now; the watch will tell, with WHY (static text). */
void link_cut(struct link *l, const char *why);
