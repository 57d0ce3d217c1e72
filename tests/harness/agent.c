/* PID 1 of a test guest: sets the guest up, then does what the host asks over a serial line.
 *
 * A request is a 32-bit big-endian length and that many bytes: fields, each ended by a NUL.
 * The first field is the request's name, see `requests` below.  An answer, and the notice of
 * a process's exit, has the same form; its first field is `ok`, `error` or `exit`.
 * tests/harness/guest.py is the other end. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "lib/util/macro.h"

#define LINE		"/dev/ttyS0"
#define LINE_MAX_BYTES	3000u		/* of a request that comes over the line */
#define MESSAGE_MAX	(256u << 10)	/* bytes of one that is in a file */
#define READ_MAX	(1u << 20)	/* bytes of a file that one answer carries */
#define FIELDS_MAX	512
#define PATH_SIZE	4096
#define CALL_SECONDS	10		/* how long a call of a daemon may take */

struct agent {
	int line;
	sigset_t usual_mask;		/* what children start with */
};

struct fields {
	char *at[FIELDS_MAX + 1];	/* NULL-terminated, as exec wants it */
	size_t n;
};

static _noreturn_ void die(const char *what)
{
	fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void write_all(int fd, const void *data, size_t len)
{
	for (const char *p = data; len; ) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno != EINTR)
			die("the line to the host");
		if (n > 0)
			p += n, len -= n;
	}
}

static void read_all(int fd, void *data, size_t len)
{
	for (char *p = data; len; ) {
		ssize_t n = read(fd, p, len);

		if (n == 0)
			die("the host has gone");
		if (n < 0 && errno != EINTR)
			die("the line to the host");
		if (n > 0)
			p += n, len -= n;
	}
}

static void send_message(struct agent *a, const void *data, uint32_t len)
{
	uint32_t head = __builtin_bswap32(len);

	write_all(a->line, &head, sizeof(head));
	write_all(a->line, data, len);
}

static void answer(struct agent *a, const char *word, long value)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%s%c%ld", word, 0, value);

	send_message(a, text, n + 1);
}

static void answer_result(struct agent *a, long result)
{
	if (result < 0)
		answer(a, "error", errno);
	else
		answer(a, "ok", result);
}

/* ---- requests */

/* Runs between vfork and exec, so it changes nothing in memory that the parent has. */
static _noreturn_ void become(struct agent *a, char *const *f, char *const *argv,
			      char **environment)
{
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int out = open(f[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	sigprocmask(SIG_SETMASK, &a->usual_mask, NULL);
	setsid();
	if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 ||
	    chdir(f[1]) < 0)
		_exit(126);
	execvpe(argv[0], argv, environment);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Ours, with the N settings at MORE in it or over it.  To be freed. */
static char **environment_with(char **more, size_t n)
{
	size_t used = n, ours = 0;
	char **all;

	while (environ[ours])
		ours++;
	all = calloc(n + ours + 1, sizeof(*all));
	if (!all)
		die("memory");
	memcpy(all, more, n * sizeof(*all));
	for (char **e = environ; *e; e++) {
		size_t name = strcspn(*e, "=") + 1, i = 0;

		while (i < n && strncmp(*e, more[i], name))
			i++;
		if (i == n)
			all[used++] = *e;
	}
	return all;
}

/* spawn DIRECTORY OUTPUT N_ENV NAME=VALUE… ARGV…: the pid, also the id of its own session.
 * A copy of this process's memory, which a fork makes, is most of what a process costs here. */
static void do_spawn(struct agent *a, struct fields *f)
{
	size_t n_env = f->n > 3 ? strtoul(f->at[3], NULL, 10) : 0;
	char **environment;
	pid_t pid;

	if (f->n < 4 || n_env > f->n || f->n - n_env < 5) {
		answer(a, "error", EINVAL);
		return;
	}
	environment = environment_with(f->at + 4, n_env);
	pid = vfork();
	if (pid == 0)
		become(a, f->at, f->at + 4 + n_env, environment);
	free(environment);
	answer_result(a, pid);
}

/* kill PID SIGNAL: a negative pid is a process group */
static void do_kill(struct agent *a, struct fields *f)
{
	if (f->n < 3) {
		answer(a, "error", EINVAL);
		return;
	}
	answer_result(a, kill(atoi(f->at[1]), atoi(f->at[2])));
}

/* read PATH: the file's bytes after `ok` */
static void do_read(struct agent *a, struct fields *f)
{
	static char data[3 + READ_MAX] = "ok";
	size_t len = 3;
	ssize_t n = -1;
	int fd = f->n < 2 ? -1 : open(f->at[1], O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && len < sizeof(data) &&
	       (n = read(fd, data + len, sizeof(data) - len)) > 0)
		len += n;
	if (n < 0)
		answer(a, "error", errno);
	else
		send_message(a, data, len);
	if (fd >= 0)
		close(fd);
}

/* write PATH DATA: replaces the file, or is one write to one of sysfs */
static void do_write(struct agent *a, struct fields *f)
{
	int fd = f->n < 3 ? -1 : open(f->at[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	answer_result(a, fd < 0 ? -1 : write(fd, f->at[2], strlen(f->at[2])));
	if (fd >= 0)
		close(fd);
}

/* unlink PATH */
static void do_unlink(struct agent *a, struct fields *f)
{
	answer_result(a, f->n < 2 ? -1 : unlink(f->at[1]));
}

/* list PATH: a field for each name in a directory */
static void do_list(struct agent *a, struct fields *f)
{
	static char data[MESSAGE_MAX] = "ok";
	size_t len = 3;
	DIR *d = f->n < 2 ? NULL : opendir(f->at[1]);

	if (!d) {
		answer(a, "error", errno);
		return;
	}
	for (struct dirent *e; (e = readdir(d)); ) {
		size_t size = strlen(e->d_name) + 1;

		if (len + size > sizeof(data))
			break;
		memcpy(data + len, e->d_name, size);
		len += size;
	}
	closedir(d);
	send_message(a, data, len);
}

/* ps: /proc/PID/stat of every process, a field each */
static void do_ps(struct agent *a, struct fields *f)
{
	static char data[MESSAGE_MAX] = "ok";
	char path[PATH_SIZE];
	size_t len = 3;
	DIR *d = opendir("/proc");

	(void)f;
	for (struct dirent *e; d && (e = readdir(d)); ) {
		ssize_t n;
		int fd;

		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, data + len, sizeof(data) - len - 1);
		if (n > 0) {
			data[len + n] = 0;
			len += n + 1;
		}
		if (fd >= 0)
			close(fd);
	}
	if (d)
		closedir(d);
	send_message(a, data, len);
}

static int dial(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = CALL_SECONDS };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* call SOCKET MESSAGE: what a daemon answers, up to a NUL.  A program that asks would cost a
 * guest a hundred times as much, and tests ask often. */
static void do_call(struct agent *a, struct fields *f)
{
	static char data[3 + READ_MAX] = "ok";
	size_t len = 3, size = f->n < 3 ? 0 : strlen(f->at[2]) + 1;
	int fd = f->n < 3 ? -1 : dial(f->at[1]);
	ssize_t n = -1;

	if (fd >= 0 && send(fd, f->at[2], size, MSG_NOSIGNAL) == (ssize_t)size)
		while (len < sizeof(data) &&
		       (n = recv(fd, data + len, sizeof(data) - len, 0)) > 0) {
			len += n;
			if (data[len - 1] == 0)
				break;
		}
	if (n == 0)
		errno = ECONNRESET;
	if (n <= 0)
		answer(a, "error", errno);
	else
		send_message(a, data, len);
	if (fd >= 0)
		close(fd);
}

static void do_from(struct agent *a, struct fields *f);

static const struct {
	const char *name;
	void (*run)(struct agent *a, struct fields *f);
} requests[] = {
	{ "spawn", do_spawn },
	{ "kill", do_kill },
	{ "read", do_read },
	{ "write", do_write },
	{ "unlink", do_unlink },
	{ "list", do_list },
	{ "ps", do_ps },
	{ "call", do_call },
	{ "from", do_from },
};

static void carry_out(struct agent *a, char *message, size_t len)
{
	struct fields f = { .n = 0 };

	message[len] = 0;
	for (char *p = message; p < message + len && f.n < FIELDS_MAX; p += strlen(p) + 1)
		f.at[f.n++] = p;
	for (size_t i = 0; f.n && i < ARRAY_SIZE(requests); i++)
		if (!strcmp(f.at[0], requests[i].name)) {
			requests[i].run(a, &f);
			return;
		}
	answer(a, "error", ENOSYS);
}

/* from FILE: the request is in FILE, since a terminal holds no more than 4 KiB */
static void do_from(struct agent *a, struct fields *f)
{
	static char message[MESSAGE_MAX + 1];
	int fd = f->n < 2 ? -1 : open(f->at[1], O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, message, MESSAGE_MAX);

	if (fd >= 0)
		close(fd);
	if (len < 0)
		answer(a, "error", errno);
	else
		carry_out(a, message, len);
}

static void serve_request(struct agent *a)
{
	static char message[LINE_MAX_BYTES + 1];
	uint32_t len;

	read_all(a->line, &len, sizeof(len));
	len = __builtin_bswap32(len);
	if (len > LINE_MAX_BYTES) {
		errno = EMSGSIZE;
		die("a request");
	}
	read_all(a->line, message, len);
	carry_out(a, message, len);
}

static void reap(struct agent *a, int signals)
{
	struct signalfd_siginfo info;
	int status;

	if (read(signals, &info, sizeof(info)) < 0)
		return;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0; ) {
		char text[64];
		int n = snprintf(text, sizeof(text), "exit%c%d%c%d", 0, pid, 0, status);

		send_message(a, text, n + 1);
	}
}

/* ---- setting the guest up */

static void make_dirs(const char *path)
{
	char part[PATH_SIZE];

	for (const char *p = path; (p = strchr(p + 1, '/')); ) {
		snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
		mkdir(part, 0755);
	}
	mkdir(path, 0755);
}

/* The machine's directory PATH, under the same name. */
static void mount_host(const char *path, unsigned long flags)
{
	make_dirs(path);
	if (mount("none", path, "hostfs", flags, path) < 0)
		die(path);
}

/* TREE, what is tested, may lie below a directory that is the guest's own, as /tmp is. */
static void mount_all(const char *share, const char *tree)
{
	static const struct { const char *type, *at, *options; } mounts[] = {
		{ "proc", "/proc", NULL },
		{ "sysfs", "/sys", NULL },
		{ "devtmpfs", "/dev", NULL },
		{ "tmpfs", "/run", NULL },
		{ "tmpfs", "/tmp", NULL },
		{ "tmpfs", "/mnt", NULL },
		{ "tmpfs", "/var/tmp", NULL },
		{ "devpts", "/dev/pts", NULL },
		{ "tmpfs", "/dev/shm", NULL },
	};

	mkdir("/dev/pts", 0755);
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		mkdir(mounts[i].at, 0755);
		if (mount(mounts[i].type, mounts[i].at, mounts[i].type, 0,
			  mounts[i].options) < 0 && errno != EBUSY)
			die(mounts[i].at);
	}
	/* A mount on /run also gives processes the usual places below it. */
	mkdir("/run/lock", 0755);
	mount_host(share, 0);
	if (tree && access(tree, F_OK) < 0)
		mount_host(tree, MS_RDONLY);
	if (symlink("/proc/self/fd", "/dev/fd") < 0 && errno != EEXIST)
		die("/dev/fd");
}

/* Load the modules that SHARE/modules lists: a path, a blank, parameters on a line each. */
static void load_modules(const char *share)
{
	char path[PATH_SIZE], text[PATH_SIZE];
	FILE *list;

	snprintf(path, sizeof(path), "%s/modules", share);
	list = fopen(path, "re");
	if (!list)
		die(path);
	while (fgets(text, sizeof(text), list)) {
		char *parameters = text + strcspn(text, " \n");
		int fd;

		if (*parameters)
			*parameters++ = 0;
		parameters[strcspn(parameters, "\n")] = 0;
		fd = open(text, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, parameters, 0) < 0)
			die(text);
		close(fd);
	}
	fclose(list);
}

static int open_line(void)
{
	struct termios t;
	int fd = open(LINE, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &t) < 0)
		die(LINE);
	cfmakeraw(&t);
	if (tcsetattr(fd, TCSANOW, &t) < 0)
		die(LINE);
	return fd;
}

static int watch_children(sigset_t *ret_usual)
{
	sigset_t children;
	int fd;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, ret_usual);
	fd = signalfd(-1, &children, SFD_CLOEXEC);
	if (fd < 0)
		die("signalfd");
	return fd;
}

int main(void)
{
	struct agent a;
	const char *share = getenv("SHARE");	/* from the kernel's command line */
	struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };

	mount_all(share ? share : "/run/share", getenv("TREE"));
	load_modules(share ? share : "/run/share");
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("LANG", "C.UTF-8", 1);
	unsetenv("SHARE");
	unsetenv("TREE");
	unsetenv("TERM");
	p[0].fd = a.line = open_line();
	p[1].fd = watch_children(&a.usual_mask);
	answer(&a, "ok", getpid());
	for (;;) {
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			die("poll");
		if (p[1].revents)
			reap(&a, p[1].fd);
		if (p[0].revents)
			serve_request(&a);
	}
}
