/* The process that runs the programs: some at once, for each device one after the other. */
#include "daemon/program_runner.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/capabilities.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "lib/util/cleanup.h"

/* To become the user that is wanted, and to end what that user started. */
#define NEEDED (CAP(CAP_SETUID) | CAP(CAP_SETGID) | CAP(CAP_KILL))

/* ---- turns ------------------------------------------------------------------------- */

const char *program_path(const struct program_order *o)
{
	return *o->path ? o->path : "its program";
}

static void start(const struct runner *r, struct turn *t)
{
	t->until_usec = now_usec() + PROGRAM_LIMIT_USEC;
	t->pid = fork();
	if (t->pid == 0)
		program_execute(r, &t->order);
}

/* A device's programs are not to overtake each other. */
static bool may_start(const struct runner *r, size_t i)
{
	if (r->turns[i].pid)
		return false;
	for (size_t k = 0; k < i; k++)
		if (strcmp(r->turns[k].order.news.name, r->turns[i].order.news.name) == 0)
			return false;
	return true;
}

static void forget(struct runner *r, size_t i)
{
	memmove(&r->turns[i], &r->turns[i + 1], (--r->n - i) * sizeof(r->turns[i]));
}

static void start_some(struct runner *r)
{
	unsigned running = 0;

	for (size_t i = 0; i < r->n; i++)
		running += r->turns[i].pid > 0;
	for (size_t i = 0; i < r->n && running < PROGRAMS_AT_ONCE; i++) {
		if (!may_start(r, i))
			continue;
		start(r, &r->turns[i]);
		if (r->turns[i].pid > 0)
			running++;
		else
			forget(r, i--);
	}
}

static void tell_end(const struct turn *t, int status)
{
	const struct news *n = &t->order.news;
	const char *path = program_path(&t->order), *event = news_name(n->kind);

	if (t->late)
		log_warning("%s: on-event: %s for '%s' took too long and was killed", n->name,
			    path, event);
	else if (WIFSIGNALED(status))
		log_warning("%s: on-event: %s for '%s' was killed by signal %d", n->name, path,
			    event, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		log_warning("%s: on-event: %s for '%s' ended with status %d", n->name, path,
			    event, WEXITSTATUS(status));
}

/* What a program has left in its session ends with it; others' orphans end by themselves. */
static void reap(struct runner *r)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < r->n; i++) {
			if (r->turns[i].pid != pid)
				continue;
			kill(-pid, SIGKILL);
			tell_end(&r->turns[i], status);
			forget(r, i);
			break;
		}
}

static void end_late_ones(struct runner *r)
{
	uint64_t now = now_usec();

	for (size_t i = 0; i < r->n; i++) {
		struct turn *t = &r->turns[i];

		if (!t->pid || MIN(t->until_usec, r->end_usec) > now)
			continue;
		t->late = true;
		t->until_usec = now + USEC_PER_SEC;	/* not at once again */
		kill(-t->pid, SIGKILL);
		kill(t->pid, SIGKILL);		/* it may not have a session yet */
	}
}

/* ---- orders ------------------------------------------------------------------------ */

/* The first signal or the end of nbdd. */
static void begin_to_end(struct runner *r)
{
	r->service.listen = -1;
	r->end_usec = MIN(r->end_usec, now_usec() + PROGRAM_LIMIT_USEC);
}

/* What clients have sent is taken; more they cannot send, and connect to the next service. */
static void take_signal(struct runner *r)
{
	struct signalfd_siginfo info;

	if (read(r->signals, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGCHLD)
		return;
	for (size_t i = 0; i < r->n_clients; i++)
		shutdown(r->clients[i], SHUT_RD);
	begin_to_end(r);
}

/* 1: an order; 0: none now, or none that is run; -errno: the client is to go. */
static int receive(const struct runner *r, int fd, struct program_order *ret)
{
	size_t size = r->files ? sizeof(ret->news) : sizeof(*ret);
	ssize_t n;

	ret->path[0] = ret->user[0] = '\0';
	n = recv(fd, r->files ? (void *)&ret->news : ret, size, MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ENOTCONN;
	if ((size_t)n != size) {
		log_error("on-event: an order of %zd bytes, expected %zu: nothing is run; is it "
			  "of another version ('systemctl restart nbdd-programs.service')?", n,
			  size);
		return -EPROTO;
	}
	return !r->files || program_check(&ret->news);
}

static void take_order(struct runner *r, size_t i)
{
	struct turn *t = &r->turns[r->n];
	int e = receive(r, r->clients[i], &t->order);

	if (e > 0) {
		t->pid = 0;
		t->late = false;
		r->n++;
	}
	if (e >= 0)
		return;
	fd_close(r->clients[i]);
	r->clients[i] = r->clients[--r->n_clients];
	if (!r->files)
		begin_to_end(r);
}

/* ---- the loop ---------------------------------------------------------------------- */

enum { POLL_SIGNALS, POLL_LISTEN, POLL_CLIENTS, POLL_MAX = POLL_CLIENTS + PROGRAM_CLIENTS_MAX };

/* While too many wait, orders stay in the sockets, and when these are full nbdd drops them. */
static void wait_for_something(const struct runner *r, struct pollfd p[static POLL_MAX])
{
	uint64_t until = MIN(r->end_usec, r->n || r->n_clients ? USEC_INFINITY : r->idle_usec);

	for (size_t i = 0; i < r->n; i++)
		if (r->turns[i].pid)
			until = MIN(until, r->turns[i].until_usec);
	p[POLL_SIGNALS] = (struct pollfd){ .fd = r->signals, .events = POLLIN };
	p[POLL_LISTEN] = (struct pollfd){ .fd = r->service.listen, .events = POLLIN };
	for (size_t i = 0; i < r->n_clients; i++)
		p[POLL_CLIENTS + i] = (struct pollfd){
			.fd = r->n < PROGRAMS_WAITING ? r->clients[i] : -1, .events = POLLIN };
	if (poll(p, POLL_CLIENTS + r->n_clients, usec_poll_timeout(until)) < 0)
		for (size_t i = 0; i < POLL_CLIENTS + r->n_clients; i++)
			p[i].revents = 0;
}

/* From the last to the first, for one that goes leaves its place to the last. */
static void take_orders(struct runner *r, const struct pollfd p[static POLL_MAX])
{
	for (size_t i = r->n_clients; i-- > 0;)
		if (p[POLL_CLIENTS + i].revents && r->n < PROGRAMS_WAITING)
			take_order(r, i);
}

/* When nbdd has ended, what it has told is still run, for a while.  The service ends when
 * there is nobody: whoever comes then starts the next. */
static bool goes_on(struct runner *r)
{
	bool busy = r->n || r->n_clients;
	uint64_t now = now_usec();

	if (r->service.listen < 0)
		return busy && now < usec_add(r->end_usec, USEC_PER_SEC);
	if (busy)
		r->idle_usec = now + PROGRAM_IDLE_USEC;
	return now < r->idle_usec;
}

static void give_up_power(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || capabilities_bound(NEEDED) < 0 ||
	    capabilities_keep(NEEDED) < 0) {
		log_error("cannot give up what the process of on-event does not need");
		_exit(1);
	}
}

/* Signals that end nbdd do not end its fork: what nbdd says at its end is run, too. */
static int take_signals(const struct runner *r)
{
	sigset_t mask;

	signal(SIGHUP, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	if (r->files) {
		sigaddset(&mask, SIGINT);
		sigaddset(&mask, SIGTERM);
	} else {
		signal(SIGINT, SIG_IGN);
		signal(SIGTERM, SIG_IGN);
	}
	sigprocmask(SIG_BLOCK, &mask, NULL);
	return signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
}

void program_run(struct runner *r)
{
	struct pollfd p[POLL_MAX];

	r->end_usec = USEC_INFINITY;
	r->idle_usec = usec_add(now_usec(), PROGRAM_IDLE_USEC);
	prctl(PR_SET_NAME, "programs");
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	r->signals = take_signals(r);
	give_up_power();
	while (r->signals >= 0 && goes_on(r)) {
		start_some(r);
		wait_for_something(r, p);
		take_orders(r, p);
		if (p[POLL_LISTEN].revents)
			program_accept(r);
		if (p[POLL_SIGNALS].revents)
			take_signal(r);
		reap(r);
		end_late_ones(r);
	}
}

void program_runner(int sock)
{
	struct runner *r = calloc(1, sizeof(*r));

	if (!r)
		_exit(1);
	r->service.listen = -1;
	r->clients[r->n_clients++] = sock;
	program_run(r);
	_exit(0);
}
