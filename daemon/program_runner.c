/* The process that runs the programs: some at once, for each device one after the other. */
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
#include "daemon/programs.h"
#include "lib/util/macro.h"

/* To become the user that is wanted, and to end what that user started. */
#define NEEDED (CAP(CAP_SETUID) | CAP(CAP_SETGID) | CAP(CAP_KILL))

struct job {
	pid_t pid;			/* 0: waits for its turn */
	uint64_t until_usec;
	bool late;			/* was killed for it */
	struct program_order order;
};

struct runner {
	int sock;			/* -1: nbdd has ended */
	int signals;
	uint64_t end_usec;		/* what runs then is ended; infinity while nbdd lives */
	size_t n;
	struct job jobs[PROGRAMS_WAITING];	/* in the order in which they came */
};

/* ---- jobs -------------------------------------------------------------------------- */

static void start(struct job *j)
{
	j->until_usec = now_usec() + PROGRAM_LIMIT_USEC;
	j->pid = fork();
	if (j->pid == 0)
		program_execute(&j->order);
}

/* A device's programs are not to overtake each other. */
static bool may_start(const struct runner *r, size_t i)
{
	if (r->jobs[i].pid)
		return false;
	for (size_t k = 0; k < i; k++)
		if (strcmp(r->jobs[k].order.news.name, r->jobs[i].order.news.name) == 0)
			return false;
	return true;
}

static void forget(struct runner *r, size_t i)
{
	memmove(&r->jobs[i], &r->jobs[i + 1], (--r->n - i) * sizeof(r->jobs[i]));
}

static void start_some(struct runner *r)
{
	unsigned running = 0;

	for (size_t i = 0; i < r->n; i++)
		running += r->jobs[i].pid > 0;
	for (size_t i = 0; i < r->n && running < PROGRAMS_AT_ONCE; i++) {
		if (!may_start(r, i))
			continue;
		start(&r->jobs[i]);
		if (r->jobs[i].pid > 0)
			running++;
		else
			forget(r, i--);
	}
}

static void tell_end(const struct job *j, int status)
{
	const struct program_order *o = &j->order;

	if (j->late)
		log_warning("%s: on-event: %s for '%s' took too long and was killed",
			    o->news.name, o->path, o->event);
	else if (WIFSIGNALED(status))
		log_warning("%s: on-event: %s for '%s' was killed by signal %d", o->news.name,
			    o->path, o->event, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		log_warning("%s: on-event: %s for '%s' ended with status %d", o->news.name,
			    o->path, o->event, WEXITSTATUS(status));
}

/* What a program has left in its session ends with it; others' orphans end by themselves. */
static void reap(struct runner *r)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	(void)!read(r->signals, &info, sizeof(info));
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < r->n; i++) {
			if (r->jobs[i].pid != pid)
				continue;
			kill(-pid, SIGKILL);
			tell_end(&r->jobs[i], status);
			forget(r, i);
			break;
		}
}

static void end_late_ones(struct runner *r)
{
	uint64_t now = now_usec();

	for (size_t i = 0; i < r->n; i++) {
		struct job *j = &r->jobs[i];

		if (!j->pid || MIN(j->until_usec, r->end_usec) > now)
			continue;
		j->late = true;
		j->until_usec = now + USEC_PER_SEC;	/* not at once again */
		kill(-j->pid, SIGKILL);
		kill(j->pid, SIGKILL);		/* it may not have a session yet */
	}
}

/* ---- orders ------------------------------------------------------------------------ */

static void take_order(struct runner *r)
{
	struct program_order *o = &r->jobs[r->n].order;
	ssize_t n = recv(r->sock, o, sizeof(*o), MSG_DONTWAIT);

	if (n == sizeof(*o)) {
		r->jobs[r->n].pid = 0;
		r->jobs[r->n++].late = false;
	} else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		r->sock = -1;
		r->end_usec = now_usec() + PROGRAM_LIMIT_USEC;
	}
}

/* While too many wait, orders stay in the socket, and when that is full nbdd drops them. */
static void wait_for_something(const struct runner *r, struct pollfd p[static 2])
{
	uint64_t until = r->end_usec;

	for (size_t i = 0; i < r->n; i++)
		if (r->jobs[i].pid)
			until = MIN(until, r->jobs[i].until_usec);
	p[0] = (struct pollfd){ .fd = r->signals, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = r->n < PROGRAMS_WAITING ? r->sock : -1, .events = POLLIN };
	poll(p, 2, usec_poll_timeout(until));
}

static void give_up_power(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || capabilities_bound(NEEDED) < 0 ||
	    capabilities_keep(NEEDED) < 0) {
		log_error("cannot give up what the process of on-event does not need");
		_exit(1);
	}
}

/* Signals that end nbdd do not end it: what nbdd says at its end is run, too. */
static int take_signals(void)
{
	sigset_t mask;

	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	return signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* When nbdd has ended, what it has told is still run, for a while. */
static bool goes_on(const struct runner *r)
{
	return r->sock >= 0 || (r->n && now_usec() < usec_add(r->end_usec, USEC_PER_SEC));
}

void program_runner(int sock)
{
	struct runner *r = calloc(1, sizeof(*r));
	struct pollfd p[2];

	if (!r)
		_exit(1);
	r->sock = sock;
	r->end_usec = USEC_INFINITY;
	prctl(PR_SET_NAME, "programs");
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	r->signals = take_signals();
	give_up_power();
	while (r->signals >= 0 && goes_on(r)) {
		start_some(r);
		wait_for_something(r, p);
		if (p[1].revents)
			take_order(r);
		reap(r);
		end_late_ones(r);
	}
	_exit(0);
}
