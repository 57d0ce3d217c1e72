#include "daemon/backoff.h"

#include "lib/util/macro.h"

#define DOUBLINGS_MAX 32

uint64_t backoff_next(struct backoff *b, uint64_t ceiling_usec, uint32_t random)
{
	uint64_t top = MIN(b->max_usec, ceiling_usec);
	uint64_t pause = MIN(b->first_usec, top);

	for (unsigned i = 0; i < MIN(b->failures, (unsigned)DOUBLINGS_MAX) && pause < top; i++)
		pause *= 2;
	b->failures++;
	pause = MIN(pause, top);
	return pause - (uint64_t)(((unsigned __int128)pause * random) >> 34);
}
