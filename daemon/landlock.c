#include "daemon/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How many rights about files each version of the interface has: the lowest bits. */
static const unsigned rights[] = { [1] = 13, [2] = 14, [3] = 15, [4] = 15, [5] = 16 };

int landlock_new(void)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0,
			       LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr attr = {};
	long fd;

	if (version < 0)
		return -errno;
	if (version < 1)
		return -EOPNOTSUPP;
	version = MIN(version, (long)ARRAY_SIZE(rights) - 1);
	attr.handled_access_fs = (UINT64_C(1) << rights[version]) - 1;
	/* Without a rule, each of these is refused everywhere. */
	fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	return fd < 0 ? -errno : (int)fd;
}

int landlock_enter(int fd)
{
	return syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
}
