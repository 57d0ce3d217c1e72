/* What somebody would try who has taken a child of the daemon over. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define PARENT_FD 3		/* the way to who made the process */

struct prey {
	pid_t parent;		/* root */
	int device;		/* a descriptor of a block device, open before */
};

struct attempt {
	const char *name;
	int (*run)(const struct prey *prey);	/* 0: it worked; or -errno */
};

extern const struct attempt attempts[];
extern const size_t n_attempts;
