/* Sockets whose closing may take for ever, for the descriptors that lie in them (rights.h): a
 * child of nbdd gets each.  Some seconds after nbdd has closed its own it is ended, and so lets
 * them go.  It need not hear of it: a process that ends does not linger, and when it waits for a
 * disk, nobody waits for it. */
#pragma once

#include <stddef.h>
#include <systemd/sd-event.h>

#include "daemon/sandbox.h"

/* More than clients of the control socket, for others may wait to be closed. */
#define DISPOSAL_SOCKETS_MAX	512
#define DISPOSAL_CHILDREN_MAX	16	/* at a time, those included that cannot end */

struct disposal;

/* SANDBOX outlives it.  0 or -errno. */
_must_check_ int disposal_new(sd_event *event, const struct sandbox *sandbox,
			      struct disposal **ret);
/* At the end of the process: what is left stays open until then, each in a child, too, however
 * many these are, which ends after it.  NULL is fine. */
void disposal_free(struct disposal *d);
/* How many sockets it could take now. */
size_t disposal_room(const struct disposal *d);
/* Take SOCK; only when there is room. */
void disposal_take(struct disposal *d, int sock);
