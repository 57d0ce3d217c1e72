/* One program, from the fork to its exec. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/capabilities.h"
#include "daemon/log.h"
#include "daemon/program_runner.h"
#include "lib/util/cleanup.h"

#define CANNOT_RUN	126
#define PROGRAM_FDS	1024
#define PROGRAM_LOCKED	(64u << 10)	/* bytes */

static _noreturn_ void fail(const struct program_order *o, const char *what, int error)
{
	log_error("%s: on-event: cannot run %s: %s: %s", o->news.name, program_path(o),
		  what, strerror(error));
	_exit(CANNOT_RUN);
}

static const struct passwd *find_user(const struct program_order *o)
{
	const struct passwd *p;

	if (*o->user) {
		p = getpwnam(o->user);
		if (!p)
			fail(o, o->user, errno ?: ENOENT);
		return p;
	}
	p = getpwnam("nbdd");
	if (!p)
		p = getpwnam("nobody");
	if (!p)
		fail(o, "there is neither a user nbdd nor nobody", ENOENT);
	return p;
}

static void become(const struct program_order *o)
{
	const struct passwd *p = find_user(o);

	if ((*o->user ? initgroups(p->pw_name, p->pw_gid) : setgroups(0, NULL)) < 0 ||
	    setresgid(p->pw_gid, p->pw_gid, p->pw_gid) < 0 ||
	    setresuid(p->pw_uid, p->pw_uid, p->pw_uid) < 0)
		fail(o, "cannot become its user", errno);
	/* Root's, too: what root owns is enough. */
	if (capabilities_keep(0) < 0)
		fail(o, "cannot give up power", EPERM);
}

/* nbdd is spared by the OOM killer and may lock memory and have many files; this is not. */
static void be_ordinary(void)
{
	_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!write(fd, "0", 1);
	setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ PROGRAM_LOCKED, PROGRAM_LOCKED });
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ PROGRAM_FDS, PROGRAM_FDS });
	umask(022);
}

static void set_signals(void)
{
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Its output goes where the log goes. */
static void set_descriptors(const struct program_order *o)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||
	    close_range(STDERR_FILENO + 1, ~0u, 0) < 0)
		fail(o, "descriptors", errno);
}

_printf_(3, 4) static char *say(char *buf, size_t size, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(buf, size, format, ap);
	va_end(ap);
	return buf;
}

static _noreturn_ void execute(const struct program_order *o)
{
	char event[64], device[64], name[CONF_NAME_MAX + 16], time[48];
	char message[DEVICE_REASON_MAX + 16];
	char *const argv[] = { (char *)o->path, NULL };
	char *const environment[] = {
		(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		say(event, sizeof(event), "NBDD_EVENT=%s", news_name(o->news.kind)),
		say(device, sizeof(device), "NBDD_DEVICE=%s", o->news.device),
		say(name, sizeof(name), "NBDD_NAME=%s", o->news.name),
		say(time, sizeof(time), "NBDD_TIME=%" PRIu64, o->news.real_usec),
		say(message, sizeof(message), "NBDD_MESSAGE=%s", o->news.message), NULL,
	};

	execve(o->path, argv, environment);
	fail(o, "exec", errno);
}

void program_execute(const struct runner *r, struct program_order *o)
{
	set_signals();
	setsid();
	if (chdir("/") < 0)
		fail(o, "/", errno);
	be_ordinary();
	set_descriptors(o);
	if (r->files)
		program_look_up(r->files, o);
	become(o);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execute(o);
}
