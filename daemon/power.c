#include "daemon/power.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/capabilities.h"
#include "daemon/log.h"
#include "daemon/sandbox.h"
#include "daemon/sandbox_rules.h"
#include "lib/util/cleanup.h"

#define DAEMON_FDS		16384

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

/* What each is for; without it, that fails. */
static const uint64_t needed =
	CAP(CAP_SYS_ADMIN) |		/* the nbd driver's netlink commands */
	CAP(CAP_NET_ADMIN) |		/* SOCK_DESTROY, of a socket we have no descriptor of */
	CAP(CAP_DAC_OVERRIDE) |		/* a server's Unix socket, whoever owns it */
	CAP(CAP_DAC_READ_SEARCH);	/* keys and device nodes, whoever owns them */
static const uint64_t needed_in_initramfs = CAP(CAP_SYS_CHROOT);	/* newroot.h */

static const char *const needed_names[] = {
	[CAP_SYS_ADMIN] = "CAP_SYS_ADMIN", [CAP_NET_ADMIN] = "CAP_NET_ADMIN",
	[CAP_DAC_OVERRIDE] = "CAP_DAC_OVERRIDE",
	[CAP_DAC_READ_SEARCH] = "CAP_DAC_READ_SEARCH",
};

static void set_limit(int resource, rlim_t value)
{
	struct rlimit old, limit = { value, value };

	if (setrlimit(resource, &limit) == 0)
		return;
	if (errno == EPERM && getrlimit(resource, &old) == 0) {
		limit.rlim_cur = limit.rlim_max = MIN(value, old.rlim_max);
		if (setrlimit(resource, &limit) == 0)
			return;
	}
	log_warning("cannot set resource limit %d: %s", resource, strerror(errno));
}

static void avoid_oom_killer(void)
{
	_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "-1000", 5) != 5)
		log_warning("cannot keep the OOM killer away: %s", strerror(errno));
}

void power_lock_memory(void)
{
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		log_warning("cannot lock memory: %s", strerror(errno));
}

void power_hold_memory(void)
{
	/* One heap that is never given back: after the first devices it stops growing, and
	 * no page is faulted in anew. */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	set_limit(RLIMIT_NOFILE, DAEMON_FDS);
	set_limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
	power_lock_memory();
	/* Our allocations must not wait for writes to the devices that we keep alive. */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		log_warning("cannot become an I/O flusher: %s", strerror(errno));
	avoid_oom_killer();
}

/* A program that nbdd would execute is none of its own. */
static int refuse_calls(void)
{
	struct sock_fprog p = {};
	int r;

	if (!sandbox_can_filter())
		return 0;
	r = sandbox_compile_daemon(&p);
	if (r >= 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p) < 0)
		r = -errno;
	free(p.filter);
	return r;
}

int power_drop_to(uint64_t keep, const struct sandbox *user)
{
	int r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;

	/* What it has it keeps without it; what it executed would get nothing.  Who is not root
	 * gets nothing by executing anyway, now. */
	if (r >= 0)
		r = capabilities_bound(0);
	if (r == -EPERM && geteuid() != 0)
		r = 0;
	if (r >= 0 && user)
		r = sandbox_become_user(user);
	if (r >= 0)
		r = capabilities_keep(keep);
	if (r >= 0)
		r = refuse_calls();
	if (r < 0)
		log_error("cannot give up what nbdd does not need: %s", strerror(-r));
	return r;
}

bool power_suffices(void)
{
	return geteuid() == 0 || capabilities_have() & CAP(CAP_SYS_ADMIN);
}

int power_drop(bool follows_root)
{
	uint64_t missing = needed & ~capabilities_have();

	for (size_t i = 0; i < ARRAY_SIZE(needed_names); i++)
		if (missing & CAP(i))
			log_warning("nbdd was started without %s: what needs it fails",
				    needed_names[i]);
	return power_drop_to(needed | (follows_root ? needed_in_initramfs : 0), NULL);
}
