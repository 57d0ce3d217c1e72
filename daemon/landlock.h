/* No file system for a process that cannot be shut into an empty directory, since that takes
 * CAP_SYS_CHROOT (landlock(7)).  What it has open stays; it cannot open anything. */
#pragma once

#include "lib/util/macro.h"

/* A descriptor of "nothing", or -errno: -ENOSYS, -EOPNOTSUPP: this kernel has no such thing. */
_must_check_ int landlock_new(void);
/* From now on, for this process and its children; NO_NEW_PRIVS is set.  0 or -errno. */
_must_check_ int landlock_enter(int fd);
