/* Does a device's server get on with the kernel's TLS?  One that changes its keys or sends
 * tickets ends each connection sooner or later; where that happens again and again, or where
 * the kernel turns out not to be able to, a relay does it from then on, if kernel-tls is
 * `auto`: until the device is attached anew, or `nbdctl reconnect`.  The next nbdd learns of it,
 * but counts anew. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/ktls.h"
#include "daemon/tls_plan.h"

/* So many connections that end by TLS within such a time are too many. */
#define KTLS_ENDS_MAX	4
#define KTLS_ENDS_MINUTES 10

struct device;

struct ktls_trust {
	uint64_t ends_usec[KTLS_ENDS_MAX];	/* when the last ones were, monotonic; 0: none */
	unsigned n_ends;			/* ever; the next one's place, modulo the above */
	char distrust[TLS_WHY_MAX];		/* why a relay is used; "": the kernel is */
};

/* A connection of D, by the kernel's TLS, has hung up by END: why, as a clause; NULL: not by
 * TLS. */
const char *ktls_trust_end(struct device *d, enum ktls_end end);
/* The kernel cannot do it, for WHY (escaped); CANDIDATE: with the server that D moves to, which
 * counts once it is D's.  Is a relay to do it, which was not to before? */
bool ktls_distrust(struct device *d, bool candidate, const char *why);
/* Connections end again and again, and may not be relayed: true with TEXT filled. */
bool ktls_trust_warning(const struct device *d, char *text, size_t size);
