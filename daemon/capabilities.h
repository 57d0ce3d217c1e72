/* The capabilities of this process (capabilities(7)), without opening a file for it: children
 * drop theirs while the root device may be away. */
#pragma once

#include <stdint.h>

#include "lib/util/macro.h"

#define CAP(number) (UINT64_C(1) << (number))

/* No program that is executed later can have more than KEEP, a set of CAP().  0 or -errno. */
_must_check_ int capabilities_bound(uint64_t keep);
/* From now on this thread has KEEP and no others.  0 or -errno. */
_must_check_ int capabilities_keep(uint64_t keep);
