/* The capabilities of this process (capabilities(7)), without opening a file for it: children
 * drop theirs while the root device may be away. */
#pragma once

#include <stdint.h>

#include "lib/util/macro.h"

#define CAP(number) (UINT64_C(1) << (number))

/* No program that is executed later can have more than KEEP, a set of CAP().  0 or -errno. */
_must_check_ int capabilities_bound(uint64_t keep);
/* What this thread may have in effect (its permitted ones), a set of CAP(). */
uint64_t capabilities_have(void);
/* From now on this thread has of KEEP what it may, no others, and hands none on to what it
 * executes.  0 or -errno. */
_must_check_ int capabilities_keep(uint64_t keep);
