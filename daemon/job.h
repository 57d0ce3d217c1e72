/* What a child of the spawner is to do, in memory that goes there by its descriptor.
 *
 * It may hold keys: it is locked (power_hold_memory), in no core dump and in no fork of
 * ours, and wiped when it is freed. */
#pragma once

#include <stddef.h>

#include "lib/util/macro.h"

#define JOB_MAX (4u << 20)		/* bytes */

struct job {
	int fd;				/* -1: there is none */
	size_t size;			/* bytes */
	void *data;
};

#define JOB_NULL ((struct job){ .fd = -1 })

/* SIZE bytes, all zero.  0 or -errno. */
_must_check_ int job_new(size_t size, struct job *ret);
/* A copy of those of FD, which stays the caller's, for a child that is to work on them: who has
 * written them cannot change what was checked.  *RET has no descriptor.  0 or -errno. */
_must_check_ int job_copy(int fd, struct job *ret);
/* Wipe and free; JOB_NULL is fine. */
void job_free(struct job *j);
