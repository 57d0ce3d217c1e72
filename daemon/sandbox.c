#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/capabilities.h"
#include "daemon/landlock.h"
#include "daemon/log.h"
#include "daemon/sandbox_rules.h"
#include "lib/util/cleanup.h"

#define NOBODY_ID	65534
#define CHILD_FDS	64
/* An answer carries a descriptor.  Of all that processes of its user have sent and nobody has
 * taken there may be as many as the sender may have open (unix(7), ETOOMANYREFS): more than
 * others, each with its own limit and at most 253 in a message, can put there. */
#define ANSWER_FDS	16384
#define MIB		(UINT64_C(1) << 20)

struct sandbox {
	uid_t maker;		/* who made this */
	uid_t uid;
	gid_t gid;
	int empty_fd;		/* a directory with nothing in it; -1: we may not chroot */
	int landlock_fd;	/* the same by landlock.h; -1: this kernel has none */
	int null_fd;
	int proc_fd;		/* procfs, without a way to it over a disk */
	int statm_fd;		/* the daemon's own size, which is a fresh child's, too */
	struct sock_fprog filters[SANDBOX_ROLES];	/* none: the kernel has no seccomp */
};

/* What a role may keep; NEGOTIATE is entered from DIAL, and no differently. */
static const struct {
	bool nbdd;			/* nbdd's user, with CAPABILITIES; else not */
	bool keeps_files;		/* the root directory */
	uint64_t capabilities;
	uint64_t memory;		/* bytes of address space, beyond the daemon's */
	rlim_t descriptors;		/* 0: CHILD_FDS; no more than the daemon's */
} roles[SANDBOX_ROLES] = {
	[SANDBOX_DIAL] = { .memory = 64 * MIB, .descriptors = ANSWER_FDS },
	[SANDBOX_NEGOTIATE] = { .memory = 64 * MIB, .descriptors = ANSWER_FDS },
	[SANDBOX_RELAY] = { .memory = 64 * MIB },
	[SANDBOX_RESOLVE] = { .keeps_files = true, .memory = 256 * MIB },
	[SANDBOX_READ] = {
		.nbdd = true, .keeps_files = true, .memory = 64 * MIB,
		.capabilities = CAP(CAP_DAC_READ_SEARCH),	/* files of any owner */
	},
	[SANDBOX_ERRAND] = {
		.nbdd = true, .keeps_files = true, .memory = 64 * MIB,
		.capabilities = CAP(CAP_DAC_OVERRIDE),	/* node and settings of any owner */
	},
	[SANDBOX_REACH] = {
		.nbdd = true, .keeps_files = true, .memory = 64 * MIB,
		.capabilities = CAP(CAP_DAC_OVERRIDE),		/* a socket of any owner */
	},
	[SANDBOX_DISPOSE] = { .nbdd = true, .keeps_files = true, .memory = MIB },
};

/* ---- at the start ------------------------------------------------------------------ */

static void find_user(struct sandbox *s)
{
	struct passwd *p = getpwnam("nbdd");

	if (!p)
		p = getpwnam("nobody");
	s->uid = p && p->pw_uid ? p->pw_uid : NOBODY_ID;
	s->gid = p && p->pw_gid ? p->pw_gid : NOBODY_ID;
}

static int open_high(const char *path, int flags)
{
	_cleanup_close_ int fd = open(path, flags | O_CLOEXEC);
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SANDBOX_FIRST_FD);

	if (high < 0) {
		high = -errno;
		log_error("cannot open %s, which children need: %s", path, strerror(errno));
	}
	return high;
}

static int open_empty(const char *runtime_dir)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	char path[4096];

	if ((size_t)snprintf(path, sizeof(path), "%s/empty", runtime_dir) >= sizeof(path))
		return -ENAMETOOLONG;
	/* Whatever the umask, for those who enter it are nobody; an older nbdd may have made it,
	 * and may have been another user. */
	if (mkdir(path, 0555) == 0 || errno == EEXIST)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 ||
	    ((st.st_mode & 07777) != 0555 && fchmod(fd, 0555) < 0)) {
		log_error("cannot make %s: %s", path, strerror(errno));
		return -errno;
	}
	return open_high(path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

/* Sanitizers and valgrind make system calls of their own, at any time. */
static bool instrumented(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#else
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "/vgpreload_");
#endif
}

bool sandbox_can_filter(void)
{
	if (instrumented()) {
		log_warning("nbdd runs under a checker, so it filters no system calls");
		return false;
	}
	/* seccomp(2): EFAULT for a program at NULL, where there are filters. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) < 0 && errno == EFAULT)
		return true;
	log_warning("this kernel cannot filter system calls (seccomp): children that talk to "
		    "servers are confined by user, limits and root directory alone");
	return false;
}

static int compile(struct sandbox *s)
{
	int r = 0;

	if (!sandbox_can_filter())
		return 0;
	for (size_t i = 0; i < SANDBOX_ROLES && r >= 0; i++)
		r = sandbox_compile(i, &s->filters[i]);
	if (r < 0)
		log_error("cannot make the filters of system calls: %s", strerror(-r));
	return r;
}

int sandbox_forked(struct sandbox *s)
{
	_cleanup_close_ int fd = openat(s->proc_fd, "self/statm", O_RDONLY | O_CLOEXEC);
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SANDBOX_FIRST_FD);

	if (high < 0)
		return -errno;
	fd_close(s->statm_fd);
	s->statm_fd = high;
	return 0;
}

static int open_landlock(void)
{
	_cleanup_close_ int fd = landlock_new();

	return fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, SANDBOX_FIRST_FD);
}

/* Where children can open nothing. */
static int hide_files(struct sandbox *s, const char *runtime_dir)
{
	s->landlock_fd = open_landlock();
	if (runtime_dir) {
		s->empty_fd = open_empty(runtime_dir);
		return s->empty_fd < 0 ? s->empty_fd : 0;
	}
	if (s->landlock_fd < 0)
		log_warning("this kernel cannot hide files (Landlock: %s): children that talk to "
			    "servers are kept from them by the filters of system calls alone",
			    strerror(-s->landlock_fd));
	return 0;
}

int sandbox_new(const char *runtime_dir, struct sandbox **ret)
{
	struct sandbox *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct sandbox){ .maker = geteuid(), .uid = geteuid(), .gid = getegid(),
			       .empty_fd = -1, .landlock_fd = -1, .statm_fd = -1 };
	if (runtime_dir)
		find_user(s);
	s->null_fd = open_high("/dev/null", O_RDWR);
	s->proc_fd = open_high("/proc", O_PATH | O_DIRECTORY);
	if (hide_files(s, runtime_dir) < 0 || s->null_fd < 0 || s->proc_fd < 0)
		r = -EBADF;
	else
		r = sandbox_forked(s);
	if (r < 0)
		log_error("cannot read this process's size in /proc: %s", strerror(-r));
	else
		r = compile(s);
	if (r < 0) {
		sandbox_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void sandbox_free(struct sandbox *s)
{
	if (!s)
		return;
	fd_close(s->empty_fd);
	fd_close(s->landlock_fd);
	fd_close(s->null_fd);
	fd_close(s->proc_fd);
	fd_close(s->statm_fd);
	for (size_t i = 0; i < SANDBOX_ROLES; i++)
		free(s->filters[i].filter);
	free(s);
}

/* ---- in the child ------------------------------------------------------------------ */

static int set_limit(int resource, rlim_t value)
{
	return setrlimit(resource, &(struct rlimit){ value, value }) < 0 ? -errno : 0;
}

static int limit_descriptors(enum sandbox_role role)
{
	rlim_t value = roles[role].descriptors ? roles[role].descriptors : CHILD_FDS;
	struct rlimit now;

	if (getrlimit(RLIMIT_NOFILE, &now) < 0)
		return -errno;
	return set_limit(RLIMIT_NOFILE, MIN(value, now.rlim_max));
}

/* A fork begins with all of the daemon's memory; ROOM is what it may add. */
static int limit_memory(const struct sandbox *s, uint64_t room)
{
	unsigned long pages;
	char text[64];
	ssize_t n;

	if (instrumented())
		return 0;
	n = pread(s->statm_fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return n < 0 ? -errno : -EIO;
	text[n] = '\0';
	pages = strtoul(text, NULL, 10);
	return set_limit(RLIMIT_AS, pages * (uint64_t)sysconf(_SC_PAGESIZE) + room);
}

/* It neither writes into files nor begins threads or processes. */
static int limit_unprivileged(const struct sandbox *s)
{
	int r;

	if (instrumented())
		return 0;
	r = set_limit(RLIMIT_FSIZE, 0);
	if (r >= 0)
		r = set_limit(RLIMIT_NPROC, 0);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && r >= 0; fd++)
		r = dup2(s->null_fd, fd) < 0 ? -errno : 0;
	return r;
}

/* The real user stays root: systemd's last kill at the shutdown spares no others, and other
 * processes of that user can neither signal nor trace it. */
int sandbox_become_user(const struct sandbox *s)
{
	bool is_it = s->maker == s->uid;

	if (is_it)
		return prctl(PR_SET_DUMPABLE, 0) < 0 ? -errno : 0;
	if (setgroups(0, NULL) < 0 || setresgid(s->gid, s->gid, s->gid) < 0 ||
	    setresuid(0, s->uid, 0) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
		return -errno;
	return 0;
}

static int leave_files(const struct sandbox *s)
{
	if (s->empty_fd >= 0 && (fchdir(s->empty_fd) < 0 || chroot(".") < 0))
		return -errno;
	return s->landlock_fd >= 0 ? landlock_enter(s->landlock_fd) : 0;
}

static int drop_power(const struct sandbox *s, enum sandbox_role role)
{
	int r = 0;

	if (roles[role].nbdd ? geteuid() != s->maker : geteuid() != s->uid)
		return -EPERM;
	if (!roles[role].keeps_files)
		r = leave_files(s);
	if (r < 0)
		return r;
	if (!roles[role].nbdd && getuid() != s->uid && setresuid(s->uid, s->uid, s->uid) < 0)
		return -errno;
	r = capabilities_keep(roles[role].capabilities);
	if (r >= 0 && !roles[role].nbdd)
		r = limit_unprivileged(s);
	return r;
}

int sandbox_enter(const struct sandbox *s, enum sandbox_role role)
{
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	r = set_limit(RLIMIT_CORE, 0);
	if (r >= 0)
		r = limit_descriptors(role);
	if (r >= 0)
		r = limit_memory(s, roles[role].memory);
	if (r >= 0)
		r = drop_power(s, role);
	/* Changing the user clears both; set after it. */
	if (r >= 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0))
		r = -errno;
	return r;
}

int sandbox_filter(const struct sandbox *s, enum sandbox_role role)
{
	const struct sock_fprog *p = &s->filters[role];

	if (!p->filter)
		return 0;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, p) < 0 ? -errno : 0;
}
