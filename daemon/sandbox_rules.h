/* The system calls of each role, as one table. */
#pragma once

#include <linux/filter.h>
#include <stddef.h>

#include "daemon/sandbox.h"

/* What becomes of a system call that is not in the table. */
enum sandbox_otherwise {
	OTHERWISE_KILL,		/* the process: it reads a peer's bytes and is compromised */
	OTHERWISE_ENOSYS,	/* what others' code does, and does without */
};

/* Translate the rows of ROLE for this machine; the program is the caller's to free, or
 * *RET has no filter where the kernel has no seccomp.  0 or -errno. */
_must_check_ int sandbox_compile(enum sandbox_role role, struct sock_fprog *ret);

/* The same for nbdd itself: all but what it never does. */
_must_check_ int sandbox_compile_daemon(struct sock_fprog *ret);
