/* Connect to whichever of several addresses answers first (RFC 8305, section 5): attempts
 * begin in order, one more each DIAL_STAGGER_USEC or as soon as one has failed. */
#pragma once

#include <nbdd.h>
#include <poll.h>

#include "lib/util/clock.h"
#include "lib/util/macro.h"

#define DIAL_STAGGER_USEC	(250 * USEC_PER_MSEC)	/* "Connection Attempt Delay" */
#define DIAL_ATTEMPTS_MAX	8			/* at a time */
#define DIAL_ADDRESSES_MAX	64
#define DIAL_SEVERAL_MAX	64			/* connections at once */
/* A Unix socket whose backlog is full says EAGAIN at once, where a blocking connect would
 * wait: try again, for so long. */
#define DIAL_BUSY_USEC		(20 * USEC_PER_MSEC)
#define DIAL_BUSY_TRIES		500

struct dial;

/* A copy of N <= DIAL_ADDRESSES_MAX addresses; NULL when out of memory. */
struct dial *dial_new(const struct nbdd_address *addresses, size_t n);
void dial_free(struct dial *d);

/* Go on without waiting: the connected descriptor (close-on-exec, non-blocking; the
 * caller's) and its address family, -EAGAIN while attempts go on, or the last attempt's
 * -errno when all failed.  READY is what dial_poll filled and poll(2) answered, or NULL. */
_must_check_ int dial_step(struct dial *d, const struct pollfd *ready, int *ret_family);

/* What to poll for before the next step: fills FDS, returns their number; *UNTIL_USEC is
 * when a step is due anyway (monotonic, may be infinity). */
size_t dial_poll(struct dial *d, struct pollfd fds[static DIAL_ATTEMPTS_MAX],
		 uint64_t *until_usec);

/* One descriptor that stands for all of it; -errno when it cannot be made. */
_must_check_ int dial_fd(struct dial *d);

/* The event, POLLIN or POLLOUT, that this descriptor becomes ready for when a step is due. */
short dial_events(const struct dial *d);

/* All of it in one blocking call: a connected descriptor in blocking mode (close-on-exec; the
 * caller's), or -errno. */
_must_check_ int dial_blocking(const struct nbdd_address *addresses, size_t n);

/* The same for 1 to DIAL_SEVERAL_MAX connections at once: in each place of FDS such a descriptor
 * or -errno.  How many are connected.  LATE_USEC (or infinity) after the first is, the others
 * end with -ETIMEDOUT. */
_must_check_ size_t dial_several(const struct nbdd_address *addresses, size_t n, int *fds,
				 size_t n_fds, uint64_t late_usec);
