#include "daemon/patience.h"

#include <errno.h>

#include "lib/util/clock.h"

int patience_begin(struct patience *p, int pid, uint64_t still_usec, uint64_t limit_usec)
{
	clockid_t clock;
	int r = clock_getcpuclockid(pid, &clock);

	if (r)
		return -r;
	*p = (struct patience){
		.clock = clock, .began_usec = now_usec(), .still_usec = still_usec,
		.limit_usec = limit_usec,
	};
	p->moved_usec = p->began_usec;
	return clock_gettime(clock, &p->cpu) < 0 ? -errno : 0;
}

bool patience_left(struct patience *p)
{
	uint64_t now = now_usec();
	struct timespec cpu = p->cpu;

	if (clock_gettime(p->clock, &cpu) == 0 &&	/* else it has ended */
	    (cpu.tv_sec != p->cpu.tv_sec || cpu.tv_nsec != p->cpu.tv_nsec))
		p->moved_usec = now;
	p->cpu = cpu;
	return now - p->moved_usec < p->still_usec && now - p->began_usec < p->limit_usec;
}
