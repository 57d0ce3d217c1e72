#include "daemon/disposal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "daemon/child.h"
#include "daemon/log.h"
#include "lib/util/clock.h"
#include "lib/util/fd.h"

#define BEGIN_LIMIT_USEC	(10 * USEC_PER_SEC)
#define AGAIN_USEC		USEC_PER_SEC

struct waste {
	struct disposal *all;
	int sock;			/* -1: a free place */
	struct child *child;		/* that is to have it, or NULL */
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
	struct child *child = w->child;

	fd_close(answer->fd);
	w->child = NULL;
	if (answer->error)		/* it has ended; another will be made */
		return;
	w->sock = fd_close(w->sock);
	w->all->n--;
	child_cancel(child);
}

static void begin(struct waste *w)
{
	struct disposal *d = w->all;
	/* It answers once, and is ended by the cancelling: not before. */
	int r = child_start(d->event, &(struct child_spec){
				.what = "dispose", .sandbox = d->sandbox,
				.role = SANDBOX_DISPOSE, .prepare = prepare, .run = hold,
				.arg = w, .limit_usec = BEGIN_LIMIT_USEC, .answers = 2,
				.alive = &d->n_children },
			    on_held, w, &w->child);

	if (r < 0) {
		w->child = NULL;
		log_debug("cannot have a socket closed now: %s", child_strerror(r));
	}
}

static void begin_all(struct disposal *d, unsigned max)
{
	for (size_t i = 0; i < DISPOSAL_SOCKETS_MAX && d->n_children < max; i++)
		if (d->waste[i].sock >= 0 && !d->waste[i].child)
			begin(&d->waste[i]);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct disposal *d = userdata;
	int r;

	begin_all(d, DISPOSAL_CHILDREN_MAX);
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

void disposal_free(struct disposal *d)
{
	if (!d)
		return;
	begin_all(d, DISPOSAL_SOCKETS_MAX);
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

	if (high >= 0)
		fd_close(sock);
	while (w->sock >= 0)
		w++;
	w->sock = high >= 0 ? high : sock;
	d->n++;
	if (d->n_children < DISPOSAL_CHILDREN_MAX)
		begin(w);
	/* These fail only in a loop that has ended. */
	(void)sd_event_source_set_time_relative(d->again, AGAIN_USEC);
	(void)sd_event_source_set_enabled(d->again, SD_EVENT_ONESHOT);
}
