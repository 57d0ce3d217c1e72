/* Is an export the one that the device was attached to? */
#pragma once

#include "daemon/device.h"

/* Why I/O must not go on with the export NEW, in REASON, or false.  The kernel was told size
 * and flags at attach and cannot be told otherwise under a live filesystem. */
bool identity_differs(const struct device *d, const struct export_info *new,
		      char reason[static DEVICE_REASON_MAX]);
