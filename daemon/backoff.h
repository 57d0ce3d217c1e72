/* When to try again: at once, then exponentially later with jitter, up to a maximum. */
#pragma once

#include <stdint.h>

struct backoff {
	uint64_t first_usec;	/* pause after the first failure */
	uint64_t max_usec;
	unsigned failures;	/* since the last success */
	unsigned brief;		/* connections in a row that did not last */
	uint64_t lost_usec;	/* when the latest connection was lost, monotonic */
};

static inline void backoff_reset(struct backoff *b)
{
	b->failures = 0;
}

/* Count a failure and say how long to wait, in microseconds.  CEILING_USEC bounds this
 * pause below max_usec; RANDOM is any random number: the pause varies by a quarter, so
 * that many devices of one server do not come back in step. */
uint64_t backoff_next(struct backoff *b, uint64_t ceiling_usec, uint32_t random);
