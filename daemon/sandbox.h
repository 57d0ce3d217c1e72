/* What a process of the daemon may do. */
#pragma once

#include <sys/types.h>

#include "lib/util/macro.h"

/* Who the unprivileged children are. */
struct sandbox_user {
	uid_t uid;
	gid_t gid;
};

/* The user `nbdd` where the system has one, else `nobody`. */
struct sandbox_user sandbox_find_user(void);

/* For the daemon itself: lock all memory, never reclaim into its own devices, be the last
 * that the OOM killer takes, allow many descriptors.  What the system refuses is logged
 * and gone without. */
void sandbox_hold_memory(void);

/* For a child: die with the parent, no new privileges, no core, no capability, another
 * user, few descriptors.  0 or -errno; on an error the child must not go on. */
_must_check_ int sandbox_drop_power(struct sandbox_user user);
