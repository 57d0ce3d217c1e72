/* What nbdd itself holds on to, and what it gives up. */
#pragma once

#include "lib/util/macro.h"

/* Lock all memory, never reclaim into its own devices, be the last that the OOM killer
 * takes, allow many descriptors.  What the system refuses is logged and gone without. */
void power_hold_memory(void);

/* Keep only the capabilities that nbdd uses, gain none by executing, refuse the system
 * calls that it never makes.  Before the first thread; for ever.  0 or -errno. */
_must_check_ int power_drop(void);
