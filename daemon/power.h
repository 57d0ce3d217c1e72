/* What nbdd itself holds on to, and what it gives up. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/util/macro.h"

struct sandbox;

/* Is this process root, or as good as root for the nbd driver? */
bool power_suffices(void);

/* Lock all memory, never reclaim into its own devices, be the last that the OOM killer
 * takes, allow many descriptors.  What the system refuses is logged and gone without. */
void power_hold_memory(void);
/* A fork has to lock its own copy; all the rest it has from its parent. */
void power_lock_memory(void);

/* Keep only the capabilities that nbdd uses (FOLLOWS_ROOT: also out of an initramfs), gain
 * none by executing, refuse the system calls that it never makes.  Before the first thread; for
 * ever.  0 or -errno, logged. */
_must_check_ int power_drop(bool follows_root);
/* The same for a process that keeps KEEP, a set of CAP(), as the unprivileged user of USER, or
 * as who it is when that is NULL. */
_must_check_ int power_drop_to(uint64_t keep, const struct sandbox *user);
