#include "daemon/disposal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon/child.h"
#include "daemon/log.h"
#include "lib/util/clock.h"
#include "lib/util/fd.h"

#define BEGIN_LIMIT_USEC	(10 * USEC_PER_SEC)
#define LEAVE_LIMIT_MSEC	1000
#define AGAIN_USEC		USEC_PER_SEC
/* By then other children, forked when nbdd had a socket open, have closed what they inherited:
 * the last of these would be a connector's or an errand's. */
#define HELD_USEC		(2 * USEC_PER_SEC)

struct waste {
	struct disposal *all;
	int sock;			/* -1: its child alone has it, or it is a free place */
	struct child *child;		/* that is to have it, or NULL */
	uint64_t held_usec;		/* since when that alone has it */
};

struct disposal {
	sd_event *event;
	const struct sandbox *sandbox;
	sd_event_source *again;
	unsigned n_children;		/* not yet reaped */
	size_t n;
	struct waste waste[DISPOSAL_SOCKETS_MAX];
};

/* ---- in the child ------------------------------------------------------------------ */

static int prepare(void *arg)
{
	return ((const struct waste *)arg)->sock;
}

static void hold(int sock, int kept, void *arg)
{
	char byte = 0;
	struct iovec one = { &byte, 1 };

	(void)!writev(sock, &one, 1);
	/* Not to close it, whatever comes: who lives on would wait. */
	for (;;)
		poll(NULL, 0, -1);
}

/* ---- in nbdd ----------------------------------------------------------------------- */

static void on_held(const struct child_answer *answer, void *userdata)
{
	struct waste *w = userdata;

	fd_close(answer->fd);
	if (!answer->error) {
		w->sock = fd_close(w->sock);
		w->held_usec = now_usec();
		return;
	}
	/* It has ended: with the socket, or another will be made. */
	w->child = NULL;
	w->all->n -= w->sock < 0;
}

static void end(struct waste *w)
{
	w->child = child_cancel(w->child);
	w->all->n--;
}

static struct child_spec spec_of(struct waste *w)
{
	return (struct child_spec){
		.what = "dispose", .sandbox = w->all->sandbox, .role = SANDBOX_DISPOSE,
		.prepare = prepare, .run = hold, .arg = w, .limit_usec = BEGIN_LIMIT_USEC,
		/* It answers once, and is ended by the cancelling: not before. */
		.answers = 2, .alive = &w->all->n_children };
}

static void begin(struct waste *w)
{
	struct child_spec spec = spec_of(w);
	int r = child_start(w->all->event, &spec, on_held, w, &w->child);

	if (r < 0) {
		w->child = NULL;
		log_debug("cannot have a socket closed now: %s", child_strerror(r));
	}
}

static bool waits(const struct waste *w)
{
	return w->sock >= 0 && !w->child;
}

static bool is_held(const struct waste *w)
{
	return w->sock < 0 && w->child && now_usec() >= w->held_usec + HELD_USEC;
}

static void go_on(struct disposal *d, struct waste *w)
{
	if (is_held(w))
		end(w);
	else if (waits(w) && d->n_children < DISPOSAL_CHILDREN_MAX)
		begin(w);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct disposal *d = userdata;
	int r;

	for (size_t i = 0; i < DISPOSAL_SOCKETS_MAX; i++)
		go_on(d, &d->waste[i]);
	if (!d->n)
		return 0;
	r = sd_event_source_set_time_relative(source, AGAIN_USEC);
	return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int disposal_new(sd_event *event, const struct sandbox *sandbox, struct disposal **ret)
{
	struct disposal *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	*d = (struct disposal){ .event = event, .sandbox = sandbox };
	for (size_t i = 0; i < DISPOSAL_SOCKETS_MAX; i++)
		d->waste[i] = (struct waste){ .all = d, .sock = -1 };
	r = sd_event_add_time(event, &d->again, CLOCK_MONOTONIC, 0, 0, on_again, d);
	if (r >= 0)
		r = sd_event_source_set_priority(d->again, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0)
		r = sd_event_source_set_enabled(d->again, SD_EVENT_OFF);
	if (r < 0) {
		disposal_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

/* In a loop that has ended nothing can be waited for, nor has to be: it is told of our end when
 * our descriptors are closed. */
static void leave(struct waste *w)
{
	struct child_spec spec = spec_of(w);
	pid_t parent = getpid();
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	if (fork() == 0)
		child_main(&spec, pair[1], parent);
	fd_close(pair[1]);
	/* Until then it has all of our descriptors. */
	poll(&(struct pollfd){ .fd = pair[0], .events = POLLIN }, 1, LEAVE_LIMIT_MSEC);
	fd_close(pair[0]);
}

void disposal_free(struct disposal *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < DISPOSAL_SOCKETS_MAX; i++)
		if (waits(&d->waste[i]))
			leave(&d->waste[i]);
	sd_event_source_disable_unref(d->again);
	free(d);
}

size_t disposal_room(const struct disposal *d)
{
	return DISPOSAL_SOCKETS_MAX - d->n;
}

void disposal_take(struct disposal *d, int sock)
{
	/* Not among those that a child arranges for itself. */
	int high = fcntl(sock, F_DUPFD_CLOEXEC, SANDBOX_FIRST_FD);
	struct waste *w = d->waste;
	int running = SD_EVENT_OFF;

	if (high >= 0)
		fd_close(sock);
	while (w->sock >= 0 || w->child)
		w++;
	w->sock = high >= 0 ? high : sock;
	d->n++;
	go_on(d, w);
	(void)sd_event_source_get_enabled(d->again, &running);
	if (running != SD_EVENT_OFF)
		return;
	/* These fail only in a loop that has ended. */
	(void)sd_event_source_set_time_relative(d->again, AGAIN_USEC);
	(void)sd_event_source_set_enabled(d->again, SD_EVENT_ONESHOT);
}
