/* Live handover: an nbdd that was started with --replace gets everything from the one that
 * runs, over the private socket RUNTIME_DIR/handover (SOCK_SEQPACKET, root's alone).
 *
 *	new				old
 *	HELLO protocol, states known
 *					REFUSED, or WELCOME
 *					(waits until no call into the kernel is under way,
 *					and does nothing else from here on)
 *					DEVICE state + sockets, for each
 *					END + lock, control socket, netlink socket
 *	TAKEN (all of it is understood)
 *					GO
 *	RUNNING
 *					(ends)
 *
 * Until it sends GO the old one is in charge, and after any failure goes on as before; what
 * it has given the new one is shared, so that is killed.  From
 * then on the new one is; if it dies before RUNNING, the old one takes over as if it were
 * the next.  If the old one dies, the new one takes over what it finds, as after any crash.
 * Which of the two has died is known by pidfd, never by a time-out alone. */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "daemon/inherit.h"

struct manager;
struct manager_options;
struct handover;

/* ---- the one that runs ------------------------------------------------------------- */

/* Wait for a successor; LOCK is the runtime directory's, borrowed.  0 or -errno, logged. */
int handover_listen(struct manager *m, int lock, struct handover **ret);
void handover_free(struct handover *h);

/* ---- the one that is to follow ----------------------------------------------------- */

struct takeover {
	int sock;			/* -1: there is nobody to take over from */
	int old;			/* pidfd */
	int lock;
	struct inherited inherited;
	char **states;			/* texts */
	size_t *lens;
	size_t n_states;
	struct manager *manager;
	sd_event_source *end;		/* of the old one */
};

#define TAKEOVER_NULL ((struct takeover){ .sock = -1, .old = -1, .lock = -1, \
					  .inherited = INHERITED_NULL })

/* Get everything from the nbdd that runs with RUNTIME_DIR.  0; -ENOENT: none runs (it may
 * have died just now, and then some descriptors have come); -errno, logged. */
_must_check_ int takeover_begin(const struct manager_options *o, struct takeover *t);
/* Be in charge: adopt what has come and let the old one go; LOCK is what was T's.  0 or
 * -errno, logged; then the old one goes on, and this one has to end. */
_must_check_ int takeover_finish(struct takeover *t, int lock, struct manager *m);
void takeover_free(struct takeover *t);
