/* Time: monotonic microseconds, saturating arithmetic. */
#pragma once

#include <stdint.h>
#include <time.h>

#include "lib/util/macro.h"

#define USEC_PER_MSEC	UINT64_C(1000)
#define USEC_PER_SEC	UINT64_C(1000000)
#define USEC_PER_MINUTE	(60 * USEC_PER_SEC)
#define USEC_INFINITY	UINT64_MAX

static inline uint64_t clock_usec(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

static inline uint64_t now_usec(void)
{
	return clock_usec(CLOCK_MONOTONIC);
}

/* A + B, or infinity when either is or the sum does not fit. */
static inline uint64_t usec_add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? USEC_INFINITY : sum;
}

/* A - B, 0 when B is later; infinity stays infinity. */
static inline uint64_t usec_sub(uint64_t a, uint64_t b)
{
	if (a == USEC_INFINITY)
		return a;
	return a > b ? a - b : 0;
}

/* Milliseconds for poll(2) until UNTIL. */
static inline int usec_poll_timeout(uint64_t until_usec)
{
	uint64_t left;

	if (until_usec == USEC_INFINITY)
		return -1;
	left = usec_sub(until_usec, now_usec());
	return (int)MIN((left + 999) / 1000, (uint64_t)INT32_MAX);
}
