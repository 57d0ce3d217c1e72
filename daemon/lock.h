/* One nbdd a runtime directory. */
#pragma once

#include "lib/util/macro.h"

/* Make DIR where it is not there.  0 or -errno, which has been logged. */
_must_check_ int lock_make_directory(const char *dir);
/* Lock DIR.  One who is just dying is waited for: a thread of it may still be in
 * a call into the kernel.  The descriptor of the lock, or -errno, which has been logged. */
_must_check_ int lock_take(const char *dir);
/* FD is a lock that this process has got from another: write that into the file. */
void lock_sign(int fd);
/* Who has signed FD last, if that is alive, or 0. */
int lock_holder(int fd);
