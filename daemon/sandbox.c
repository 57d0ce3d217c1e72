#include "daemon/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/log.h"
#include "lib/util/cleanup.h"

#define NOBODY_ID		65534
#define DAEMON_FDS		16384
#define CHILD_FDS		64

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

struct sandbox_user sandbox_find_user(void)
{
	struct passwd *p = getpwnam("nbdd");

	if (!p)
		p = getpwnam("nobody");
	if (!p || p->pw_uid == 0)
		return (struct sandbox_user){ NOBODY_ID, NOBODY_ID };
	return (struct sandbox_user){ p->pw_uid, p->pw_gid };
}

static void set_limit(int resource, rlim_t value)
{
	struct rlimit old, limit = { value, value };

	if (getrlimit(resource, &old) == 0 && old.rlim_max < value && geteuid() != 0)
		limit.rlim_cur = limit.rlim_max = old.rlim_max;
	if (setrlimit(resource, &limit) < 0)
		log_warning("cannot set resource limit %d: %s", resource, strerror(errno));
}

static void avoid_oom_killer(void)
{
	_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "-1000", 5) != 5)
		log_warning("cannot keep the OOM killer away: %s", strerror(errno));
}

void sandbox_hold_memory(void)
{
	/* One heap that is never given back: after the first devices it stops growing, and
	 * no page is faulted in anew. */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	set_limit(RLIMIT_NOFILE, DAEMON_FDS);
	set_limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		log_warning("cannot lock memory: %s", strerror(errno));
	/* Our allocations must not wait for writes to the devices that we keep alive. */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		log_warning("cannot become an I/O flusher: %s", strerror(errno));
	avoid_oom_killer();
}

static int change_user(struct sandbox_user user)
{
	if (setgroups(0, NULL) < 0 ||
	    setresgid(user.gid, user.gid, user.gid) < 0 ||
	    setresuid(user.uid, user.uid, user.uid) < 0)
		return -errno;
	return 0;
}

int sandbox_drop_power(struct sandbox_user user)
{
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	set_limit(RLIMIT_CORE, 0);
	set_limit(RLIMIT_NOFILE, CHILD_FDS);
	if (geteuid() == 0) {
		capng_clear(CAPNG_SELECT_BOTH);
		if (capng_apply(CAPNG_SELECT_BOUNDS) < 0)
			return -EPERM;
		r = change_user(user);
		if (r < 0)
			return r;
	}
	/* Changing the user clears both; set again after it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
		return -errno;
	return 0;
}
