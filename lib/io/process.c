#include "lib/io/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/io/resolve.h"
#include "lib/util/cleanup.h"

extern char **environ;

#define LISTEN_FD 3	/* SD_LISTEN_FDS_START */

/* What the child may use after fork in a threaded program: everything is made before. */
struct child {
	char *const *argv;
	char **env;		/* NULL: the parent's */
	char *listen_pid;	/* where the digits of its own pid go */
	int in, out;		/* become 0 and 1, unless -1 */
	int listen;		/* becomes LISTEN_FD, unless -1 */
};

static void write_error(const char *text)
{
	ssize_t r = write(STDERR_FILENO, text, strlen(text));

	(void)r;
}

static void write_pid(char *p, pid_t pid)
{
	char digits[16];
	size_t n = 0;

	do
		digits[n++] = (char)('0' + pid % 10);
	while (pid /= 10);
	while (n)
		*p++ = digits[--n];
	*p = '\0';
}

/* Move FD to the number TO without close-on-exec. */
static bool place(int fd, int to)
{
	if (fd < 0)
		return true;
	if (fd == to)
		return fcntl(fd, F_SETFD, 0) == 0;
	return dup2(fd, to) >= 0;
}

_noreturn_ static void run_child(const struct child *c)
{
	sigset_t none;

	/* What a library user blocks or ignores is not the server's business. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (place(c->in, STDIN_FILENO) && place(c->out, STDOUT_FILENO) &&
	    place(c->listen, LISTEN_FD)) {
		if (c->listen_pid)
			write_pid(c->listen_pid, getpid());
		execvpe(c->argv[0], c->argv, c->env ? c->env : environ);
	}
	write_error(c->argv[0]);
	write_error(": ");
	write_error(strerrordesc_np(errno));
	write_error("\n");
	_exit(errno == ENOENT ? 127 : 126);
}

static int start_child(struct process *p, const struct child *c)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		run_child(c);
	p->pid = pid;
	return 0;
}

int process_start(struct process *p, char *const argv[], int *ret_fd)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	struct child c = { .argv = argv, .listen = -1 };
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	c.in = c.out = theirs;
	r = start_child(p, &c);
	if (r < 0)
		return r;
	*ret_fd = STEAL_FD(ours);
	return 0;
}

/* A listening socket in a directory that only this user may enter. */
static int listen_privately(char **ret_path)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	char dir[] = "/tmp/libnbdXXXXXX";
	struct nbdd_address a;

	if (!mkdtemp(dir))
		return -errno;
	if (asprintf(&path, "%s/sock", dir) < 0) {
		path = NULL;
		rmdir(dir);
		return -ENOMEM;
	}
	fd = unix_address(path, &a) < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a.addr, a.len) < 0 || listen(fd, 1) < 0) {
		int e = -errno;

		unlink(path);
		rmdir(dir);
		return e;
	}
	*ret_path = STEAL_PTR(path);
	return STEAL_FD(fd);
}

/* The environment with the variables of socket activation in place of older ones.
 * EXTRA has two NULL-terminated strings' worth of room at its head. */
static char **activation_environment(char *pid, char *fds, char *names)
{
	size_t n = 0, out = 0;
	char **env;

	while (environ && environ[n])
		n++;
	env = calloc(n + 4, sizeof(*env));
	if (!env)
		return NULL;
	env[out++] = pid;
	env[out++] = fds;
	if (names)
		env[out++] = names;
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "LISTEN_PID=", 11) != 0 &&
		    strncmp(environ[i], "LISTEN_FDS=", 11) != 0 &&
		    strncmp(environ[i], "LISTEN_FDNAMES=", 15) != 0)
			env[out++] = environ[i];
	return env;
}

int process_activate(struct process *p, char *const argv[], const char *name)
{
	_cleanup_free_ char *names = NULL;
	_cleanup_free_ char **env = NULL;
	_cleanup_close_ int fd = -1;
	char pid[sizeof("LISTEN_PID=") + 16] = "LISTEN_PID=";
	char fds[] = "LISTEN_FDS=1";
	struct child c = { .argv = argv, .in = -1, .out = -1,
			   .listen_pid = pid + strlen(pid) };
	int r;

	if (*name && asprintf(&names, "LISTEN_FDNAMES=%s", name) < 0)
		return -ENOMEM;
	env = activation_environment(pid, fds, names);
	if (!env)
		return -ENOMEM;
	fd = listen_privately(&p->socket_path);
	if (fd < 0)
		return fd;
	p->activated = true;
	c.env = env;
	c.listen = fd;
	r = start_child(p, &c);
	if (r < 0)
		process_stop(p);
	return r;
}

static void remove_socket(char *path)
{
	char *slash = strrchr(path, '/');

	unlink(path);
	*slash = '\0';
	rmdir(path);
}

void process_stop(struct process *p)
{
	if (p->pid > 0) {
		if (p->activated)
			kill(p->pid, SIGTERM);
		while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (p->socket_path) {
		remove_socket(p->socket_path);
		free(p->socket_path);
	}
	*p = PROCESS_NULL;
}
