/* Outages: how many, how long, why; and the timer of dead-timeout. */
#pragma once

#include "daemon/device.h"

void outage_begin(struct device *d, const char *reason);
void outage_end(struct device *d);
/* Microseconds of all outages, the present one included. */
uint64_t outage_total(const struct device *d);
