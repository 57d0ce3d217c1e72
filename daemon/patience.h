/* Waiting for a process as long as it gets on: it hangs when it uses no CPU for a while. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "lib/util/macro.h"

struct patience {
	clockid_t clock;
	struct timespec cpu;		/* that it had used when it was last asked for */
	uint64_t began_usec, moved_usec;
	uint64_t still_usec, limit_usec;
};

/* It may use no CPU for STILL_USEC, and take LIMIT_USEC in all.  0, or -ESRCH. */
_must_check_ int patience_begin(struct patience *p, int pid, uint64_t still_usec,
				uint64_t limit_usec);
/* Is it worth waiting longer?  To be asked several times in STILL_USEC. */
bool patience_left(struct patience *p);
