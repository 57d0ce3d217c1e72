/* escape DIR ROLE [ATTEMPT]...: each attempt (all of them by default) in a fresh child of that
 * role, by the daemon's own functions, and what came of it, a line each:
 *
 *     ATTEMPT worked | refused ERRNO | killed
 *
 * ROLE is one of the roles of daemon/sandbox.h, `service-ROLE` as nbdd-connect.service makes it;
 * `nbdd`: what the daemon itself may do; `hidden`: any process without files, by Landlock alone;
 * or `free`: no sandbox at all, to see that what is refused elsewhere works.  The daemon's
 * runtime directory is DIR. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/capabilities.h"
#include "daemon/child.h"
#include "daemon/landlock.h"
#include "daemon/power.h"
#include "lib/util/clock.h"
#include "lib/util/fd.h"
#include "tests/power/attempts.h"

#define LIMIT_USEC (10 * USEC_PER_SEC)
#define NOBODY 65534
#define DEVICE_FD 20		/* not one that a child arranges */

struct run {
	const struct attempt *attempt;
	pid_t parent;
	const struct sandbox *sandbox;
	unsigned alive;		/* the child, until it is reaped */
	bool negotiates;
	int device;		/* opened by root */
};

/* Whose children they are: a spawner's, or nbdd's. */
static const struct {
	const char *name;
	enum sandbox_role role;
	enum { NBDD, SPAWNER, SERVICE } parent;
	bool negotiates;
} roles[] = {
	{ "dial", SANDBOX_DIAL, SPAWNER, false },
	{ "negotiate", SANDBOX_DIAL, SPAWNER, true },
	{ "relay", SANDBOX_RELAY, SPAWNER, false },
	{ "resolve", SANDBOX_RESOLVE, SPAWNER, false },
	{ "service-dial", SANDBOX_DIAL, SERVICE, false },
	{ "service-negotiate", SANDBOX_DIAL, SERVICE, true },
	{ "service-relay", SANDBOX_RELAY, SERVICE, false },
	{ "service-resolve", SANDBOX_RESOLVE, SERVICE, false },
	{ "read", SANDBOX_READ, NBDD, false },
	{ "errand", SANDBOX_ERRAND, NBDD, false },
	{ "reach", SANDBOX_REACH, NBDD, false },
	{ "dispose", SANDBOX_DISPOSE, NBDD, false },
};

static int open_device(void)
{
	int fd = open("/dev/nbd1", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int keep_device(void *arg)
{
	return ((const struct run *)arg)->device;
}

static void payload(int sock, int kept, void *arg)
{
	const struct run *run = arg;
	struct prey prey = { run->parent, kept };
	int32_t result;

	if (run->negotiates && sandbox_filter(run->sandbox, SANDBOX_NEGOTIATE) < 0)
		return;
	result = run->attempt->run(&prey);
	/* What every role has. */
	(void)!writev(sock, &(struct iovec){ &result, sizeof(result) }, 1);
}

static void report(const struct run *run, int result)
{
	if (result < 0)
		printf("%s refused %s\n", run->attempt->name, strerrorname_np(-result));
	else
		printf("%s worked\n", run->attempt->name);
}

static void on_answer(const struct child_answer *answer, void *userdata)
{
	struct run *run = userdata;

	fd_close(answer->fd);
	if (answer->error || answer->len != sizeof(int32_t))
		printf("%s killed\n", run->attempt->name);
	else
		report(run, *(const int32_t *)answer->data);
}

static void in_role(struct run *run, size_t role)
{
	struct child_spec spec = {
		.what = "escape", .sandbox = run->sandbox, .role = roles[role].role,
		.prepare = keep_device, .run = payload, .arg = run, .limit_usec = LIMIT_USEC,
		.alive = &run->alive,
	};
	sd_event *event;
	struct child *child;
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	run->negotiates = roles[role].negotiates;
	if (sd_event_new(&event) < 0 || child_start(event, &spec, on_answer, run, &child) < 0)
		abort();
	while (run->alive)
		sd_event_run(event, LIMIT_USEC);
	sd_event_unref(event);
}

static void hide_files(void)
{
	int fd = landlock_new();

	if (fd < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || landlock_enter(fd) < 0) {
		fprintf(stderr, "no Landlock: %s\n", strerror(fd < 0 ? -fd : errno));
		exit(2);
	}
}

/* In a process like the daemon, or like any other of root's. */
static void in_fork(struct run *run, const char *as)
{
	struct prey prey = { .parent = getpid() };
	int32_t result = -1;
	int pair[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0 ||
	    dup2(pair[0], PARENT_FD) != PARENT_FD)
		abort();
	prey.device = open_device();
	pid = fork();
	if (pid == 0) {
		if (strcmp(as, "nbdd") == 0 && power_drop(false) < 0)
			abort();
		if (strcmp(as, "hidden") == 0)
			hide_files();
		result = run->attempt->run(&prey);
		_exit(write(PARENT_FD, &result, sizeof(result)) != sizeof(result));
	}
	if (pair[0] != PARENT_FD)
		close(pair[0]);
	waitpid(pid, &status, 0);
	if (recv(pair[1], &result, sizeof(result), MSG_DONTWAIT) == sizeof(result))
		report(run, result);
	else
		printf("%s killed\n", run->attempt->name);
	close(pair[1]);
	close(PARENT_FD);
	fd_close(prey.device);
}

/* Be what the role's parent is. */
static const struct sandbox *become_parent(const char *dir, size_t role)
{
	struct sandbox *sandbox;
	int r;

	if (roles[role].parent == SERVICE &&
	    (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	     setresuid(NOBODY, NOBODY, NOBODY) < 0))
		exit(2);
	if (sandbox_new(roles[role].parent == SERVICE ? NULL : dir, &sandbox) < 0)
		exit(2);
	r = roles[role].parent == NBDD ? power_drop(false) : power_drop_to(
		roles[role].parent == SERVICE ? 0 : CAP(CAP_SYS_CHROOT), sandbox);
	if (r < 0)
		exit(2);
	return sandbox;
}

static void try_it(struct run *run, const char *role, size_t place)
{
	fflush(NULL);
	if (place < ARRAY_SIZE(roles))
		in_role(run, place);
	else
		in_fork(run, role);
}

int main(int argc, char **argv)
{
	struct run run = { .parent = getpid(), .device = -1 };
	size_t place = 0;
	int32_t worked = 0;

	if (argc == 2 && strcmp(argv[1], "--executed") == 0)
		return write(3, &worked, sizeof(worked)) != sizeof(worked);
	if (argc < 3)
		return 2;
	while (place < ARRAY_SIZE(roles) && strcmp(roles[place].name, argv[2]) != 0)
		place++;
	if (place < ARRAY_SIZE(roles)) {
		run.device = fcntl(open_device(), F_DUPFD_CLOEXEC, DEVICE_FD);
		run.sandbox = become_parent(argv[1], place);
	}
	for (size_t i = 0; i < n_attempts; i++) {
		bool wanted = argc == 3;

		for (int j = 3; j < argc; j++)
			wanted |= strcmp(argv[j], attempts[i].name) == 0;
		run.attempt = &attempts[i];
		if (wanted)
			try_it(&run, argv[2], place);
	}
	return 0;
}
