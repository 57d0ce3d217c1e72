/* Who holds a device; of the door nbdk.h. */
#pragma once

#include <stddef.h>

struct nbdk_holder {
	enum nbdk_holder_kind {
		NBDK_HOLDER_MOUNT,	/* text: mount point; pid: who sees it, 0: we do */
		NBDK_HOLDER_SWAP,	/* text: path as in /proc/swaps */
		NBDK_HOLDER_DEVICE,	/* text: dm-0, md0, loop0, … */
		NBDK_HOLDER_PROCESS,	/* text: command name; pid */
	} kind;
	char device[32];		/* nbd0 or the partition nbd0p1 */
	char text[256];			/* escaped, ready to print */
	int pid;
};

/* At most MAX holders of nbdINDEX and its partitions into HOLDERS; sets *RET_N.  The calling
 * process is not one of them.  Opens no device and waits for no I/O.  Errors as
 * nbdk_sysfs_read, or -ENOMEM. */
int nbdk_holders(unsigned index, struct nbdk_holder *holders, size_t max, size_t *ret_n);
