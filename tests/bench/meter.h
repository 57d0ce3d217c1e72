/* Measuring: CPU time, wall time and system calls of this process between two points. */
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

/* syscount.so, when it is preloaded. */
__attribute__((weak)) unsigned long syscount_total(void);

struct meter {
	uint64_t wall_nsec, user_nsec, system_nsec, cpu_nsec;
	unsigned long calls;
};

static inline uint64_t nsec_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline uint64_t nsec_of_timeval(struct timeval t)
{
	return t.tv_sec * 1000000000ull + t.tv_usec * 1000ull;
}

static inline struct meter meter_read(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (struct meter) {
		.wall_nsec = nsec_of(CLOCK_MONOTONIC),
		.cpu_nsec = nsec_of(CLOCK_PROCESS_CPUTIME_ID),
		.user_nsec = nsec_of_timeval(usage.ru_utime),
		.system_nsec = nsec_of_timeval(usage.ru_stime),
		.calls = syscount_total ? syscount_total() : 0,
	};
}

/* One line of JSON on what was done since START: OPS operations of BYTES each. */
static inline void meter_report(const char *mode, const struct meter *start, uint64_t ops,
				uint64_t bytes)
{
	struct meter now = meter_read();
	double n = ops ? ops : 1, wall = (now.wall_nsec - start->wall_nsec) / 1e9;

	printf("{\"mode\": \"%s\", \"ops\": %" PRIu64 ", \"ops_s\": %.0f, \"bytes_s\": %.0f, "
	       "\"cpu_ns\": %.1f, \"user_ns\": %.1f, \"system_ns\": %.1f, \"calls\": %.4f}\n",
	       mode, ops, ops / wall, ops * bytes / wall,
	       (now.cpu_nsec - start->cpu_nsec) / n, (now.user_nsec - start->user_nsec) / n,
	       (now.system_nsec - start->system_nsec) / n,
	       syscount_total ? (now.calls - start->calls) / n : -1.0);
	fflush(stdout);
}
