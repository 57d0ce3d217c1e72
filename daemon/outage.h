/* Outages: how many, how long, why; and the timer of dead-timeout. */
#pragma once

#include <stdint.h>

#define DEVICE_REASON_MAX	512

struct device;

struct outages {
	uint64_t count;
	uint64_t total_usec;		/* of those that are over */
	uint64_t began_usec;		/* monotonic; 0: none now */
	uint64_t last_start_real_usec;
	uint64_t last_usec;
	char reason[DEVICE_REASON_MAX];
};

void outage_begin(struct device *d, const char *reason);
void outage_end(struct device *d);
/* An outage that an earlier nbdd saw begin goes on: so does dead-timeout. */
void outage_resume(struct device *d);
/* Microseconds of all outages, the present one included. */
uint64_t outage_total(const struct device *d);
