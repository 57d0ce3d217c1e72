#include "daemon/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/spawner.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

/* Descriptors of a child, below those that its sandbox needs. */
#define CHILD_SOCK	3
#define CHILD_KEPT	4

#define CHILD_FAILED	99	/* exit status: it could not give up its power */

/* Lives until the process is reaped; DONE is NULL once it was called or cancelled. */
struct child {
	pid_t pid;		/* 0: the spawner's, which reaps it and then closes the socket */
	char what[16];
	int sock;
	int pipe;		/* what it answers over instead, or -1 */
	char *bytes;		/* that have come over it */
	size_t n_bytes, n_got;
	size_t answers;		/* that it still owes */
	child_done_fn done;
	void *userdata;
	sd_event_source *message, *timer, *reaper;
	unsigned *alive;
};

static void child_free(struct child *c)
{
	sd_event_source_disable_unref(c->message);
	sd_event_source_disable_unref(c->timer);
	sd_event_source_disable_unref(c->reaper);
	fd_close(c->sock);
	fd_close(c->pipe);
	free(c->bytes);
	free(c);
}

/* The spawner kills those whose socket is shut down. */
static void child_stop(struct child *c)
{
	c->done = NULL;
	if (!c->pid) {
		c->timer = sd_event_source_disable_unref(c->timer);
		shutdown(c->sock, SHUT_WR);
		return;
	}
	c->message = sd_event_source_disable_unref(c->message);
	c->timer = sd_event_source_disable_unref(c->timer);
	c->sock = fd_close(c->sock);
	kill(c->pid, SIGKILL);
}

static void child_finish(struct child *c, const struct child_answer *answer)
{
	child_done_fn done = c->done;
	void *userdata = c->userdata;

	if (!done) {
		fd_close(answer->fd);
		return;
	}
	if (answer->error || --c->answers == 0)
		child_stop(c);
	done(answer, userdata);
}

static void child_ended(struct child *c)
{
	if (c->alive)
		(*c->alive)--;
	child_free(c);
}

static int on_message(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	_Alignas(16) char data[CHILD_MESSAGE_MAX];
	struct child *c = userdata;
	struct child_answer answer = { .data = data, .fd = -1 };
	size_t n_fds = 1;
	ssize_t n = fd_recv(fd, data, sizeof(data), &answer.fd, &n_fds);

	if (!n_fds)
		answer.fd = -1;
	answer.error = n > 0 ? 0 : n == 0 || n == -ECONNRESET ? -ECHILD : (int)n;
	answer.len = n > 0 ? (size_t)n : 0;
	child_finish(c, &answer);
	explicit_bzero(data, answer.len);	/* keys may have been in it */
	if (answer.error == -ECHILD && !c->pid)
		child_ended(c);
	return 0;
}

/* It is at its end when the spawner has reaped the process. */
static int on_bytes(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct child *c = userdata;
	struct child_answer answer = { .data = c->bytes, .len = c->n_bytes, .fd = -1 };
	/* What nobody waits for has no place of its own. */
	size_t at = c->done ? c->n_got : 0;
	ssize_t n = read(fd, c->bytes + at, c->n_bytes - at);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		child_finish(c, &(struct child_answer){ .error = -ECHILD, .fd = -1 });
		child_ended(c);
	} else if (c->done) {
		c->n_got += (size_t)n;
		if (c->n_got == c->n_bytes)
			child_finish(c, &answer);
	}
	return 0;
}

static int on_limit(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct child *c = userdata;

	child_finish(c, &(struct child_answer){ .error = -ETIMEDOUT, .fd = -1 });
	return 0;
}

void child_log_end(const char *what, const siginfo_t *si)
{
	if (si->si_code == CLD_EXITED && si->si_status == CHILD_FAILED)
		log_error("child '%s' could not give up its power, and did nothing", what);
	else if (si->si_code != CLD_EXITED && si->si_status == SIGSYS)
		log_error("child '%s' was killed: it made a system call that its role does not "
			  "have; the peer may have taken it over", what);
	else if (si->si_code != CLD_EXITED && si->si_status != SIGKILL)
		log_error("child '%s' was killed by signal %d (%s)", what, si->si_status,
			  strsignal(si->si_status));
}

/* Answers may still wait in the socket when the process is already gone. */
static int on_exit_(sd_event_source *s, const siginfo_t *si, void *userdata)
{
	struct child *c = userdata;

	child_log_end(c->what, si);
	while (c->done)
		on_message(c->message, c->sock, 0, c);
	child_ended(c);
	return 0;
}

/* The prepared descriptor moves next to the socket; all others are the daemon's. */
static int close_others(int *kept)
{
	if (*kept >= 0 && dup2(*kept, CHILD_KEPT) < 0)
		return -errno;
	if (*kept >= 0)
		*kept = CHILD_KEPT;
	return close_range(*kept >= 0 ? CHILD_KEPT + 1 : CHILD_KEPT, ~0u, 0) < 0 ? -errno : 0;
}

void child_main(const struct child_spec *spec, int sock, pid_t parent)
{
	sigset_t none;
	int kept = -1, r;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_NAME, spec->what);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || dup2(sock, CHILD_SOCK) < 0)
		_exit(CHILD_FAILED);
	if (spec->prepare)
		kept = spec->prepare(spec->arg);
	r = sandbox_enter(spec->sandbox, spec->role);
	/* A change of user clears the wish to die with the parent for a moment. */
	if (r >= 0)
		r = getppid() != parent ? -ESRCH : close_others(&kept);
	if (r >= 0 && spec->lasting && prctl(PR_SET_PDEATHSIG, 0) < 0)
		r = -errno;
	if (r >= 0 && spec->settle)
		spec->settle(kept, spec->arg);
	if (r >= 0)
		r = sandbox_filter(spec->sandbox, spec->role);
	if (r < 0)
		_exit(CHILD_FAILED);
	spec->run(CHILD_SOCK, kept, spec->arg);
	_exit(0);
}

static int child_watch(struct child *c, sd_event *event, const struct child_spec *spec)
{
	int r = c->pipe >= 0 ?
		sd_event_add_io(event, &c->message, c->pipe, EPOLLIN, on_bytes, c) :
		sd_event_add_io(event, &c->message, c->sock, EPOLLIN, on_message, c);

	if (r >= 0)
		r = sd_event_add_time_relative(event, &c->timer, CLOCK_BOOTTIME,
					       spec->limit_usec, USEC_PER_MSEC, on_limit, c);
	if (r >= 0 && c->pid)
		r = sd_event_add_child(event, &c->reaper, c->pid, WEXITED, on_exit_, c);
	return r;
}

/* In place of its messages: nothing can be put into our socket any more. */
static int make_with_pipe(struct child *c, const struct child_spec *spec, int sock)
{
	_cleanup_close_ int theirs = -1;
	int fds[2], r;

	if (shutdown(c->sock, SHUT_RD) < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	c->pipe = fds[0];
	theirs = fds[1];
	r = fd_set_nonblock(c->pipe, true);
	c->n_bytes = spec->bytes;
	c->bytes = malloc(c->n_bytes);
	if (!c->bytes)
		r = -ENOMEM;
	return r < 0 ? r : spawner_ask(spec->spawner, spec->role, spec->what, sock, spec->job,
				       theirs);
}

/* Its process; SOCK is its end of the pair. */
static int child_make(struct child *c, const struct child_spec *spec, int sock)
{
	pid_t parent = getpid();

	if (spec->bytes)
		return make_with_pipe(c, spec, sock);
	if (spec->spawner)
		return spawner_ask(spec->spawner, spec->role, spec->what, sock, spec->job,
				   spec->kept);
	c->pid = fork();
	if (c->pid == 0)
		child_main(spec, sock, parent);
	return c->pid < 0 ? -errno : 0;
}

int child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		void *userdata, struct child **ret)
{
	struct child *c = calloc(1, sizeof(*c));
	int pair[2], r;

	if (!c)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		r = -errno;
		free(c);
		return r;
	}
	c->sock = pair[0];
	c->pipe = -1;
	c->answers = MAX(spec->answers, (size_t)1);
	r = child_make(c, spec, pair[1]);
	fd_close(pair[1]);
	if (r >= 0)
		r = child_watch(c, event, spec);
	if (r < 0) {
		if (c->pid > 0) {
			kill(c->pid, SIGKILL);
			waitpid(c->pid, NULL, 0);
		}
		child_free(c);
		return r;
	}
	snprintf(c->what, sizeof(c->what), "%s", spec->what);
	c->done = done;
	c->userdata = userdata;
	c->alive = spec->alive;
	if (c->alive)
		(*c->alive)++;
	*ret = c;
	return 0;
}

const char *child_strerror(int r)
{
	return r == -EOWNERDEAD ? "the process that makes connections has ended; start nbdd anew "
				  "(`nbdd --replace`)"
	       : r == -ENOTCONN ? "nbdd-connect.service cannot be reached; 'systemctl start "
				  "nbdd-connect.socket'"
	       : r == -ECHILD ? "the process died" : strerror(-r);
}

struct child *child_cancel(struct child *c)
{
	if (c)
		child_stop(c);
	return NULL;
}
