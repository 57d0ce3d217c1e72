#include "daemon/retry.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/event.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/one_server.h"
#include "lib/util/clock.h"

/* A server that refuses is asked four times a second, so that I/O goes on soon after its
 * restart, but not for ever.  When many devices wait for it they take turns, for the first
 * that is answered wakes the others. */
#define SOON_USEC		(250 * USEC_PER_MSEC)
#define SOON_ENDS_USEC		(5 * USEC_PER_MINUTE)
#define SOON_DEVICES		8
#define TURN_MAX_USEC		USEC_PER_SEC	/* between two turns, also after that */
#define HURRY_PAUSE_USEC	(200 * USEC_PER_MSEC)
/* A server that takes connections and closes them, for a limit of clients or because it is
 * broken, would otherwise be asked as often as it can answer.  The first such loss may be a
 * restart. */
#define BRIEF_USEC		USEC_PER_SEC
#define BRIEF_PAUSE_USEC	(125 * USEC_PER_MSEC)	/* after the second, then doubled */
#define BRIEF_PAUSE_MAX_USEC	USEC_PER_SEC
#define RESOLVE_PAUSE_USEC	(10 * USEC_PER_SEC)
#define RETRY_ACCURACY_USEC	(5 * USEC_PER_MSEC)

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata);

static void schedule(struct device *d, uint64_t pause_usec)
{
	int r;

	d->retry_timer = sd_event_source_disable_unref(d->retry_timer);
	d->retry_at_usec = usec_add(now_usec(), pause_usec);
	r = sd_event_add_time(d->manager->event, &d->retry_timer, CLOCK_MONOTONIC,
			      d->retry_at_usec, RETRY_ACCURACY_USEC, on_retry, d);
	if (r < 0)
		device_log(d, LOG_ERR, "cannot plan a retry: %s", strerror(-r));
}

static uint64_t ceiling(const struct device *d, enum connect_failure failure)
{
	if (failure != FAILURE_SOON || now_usec() - d->trouble_usec > SOON_ENDS_USEC)
		return d->backoff.max_usec;
	return SOON_USEC;
}

/* Its turn comes at any moment of the time that a round takes. */
static uint64_t turn(const struct device *d, unsigned waiting, uint32_t random)
{
	uint64_t pause = MIN(ceiling(d, FAILURE_SOON), (uint64_t)TURN_MAX_USEC);
	uint64_t round = 2 * pause * (1 + waiting);

	return (uint64_t)(((unsigned __int128)round * random) >> 32);
}

static uint32_t random_number(void)
{
	uint32_t random;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = (uint32_t)now_usec() << 12;
	return random;
}

static uint64_t pause_usec(struct device *d, enum connect_failure failure)
{
	unsigned waiting = failure == FAILURE_SOON ? manager_waiting(d->manager, d) : 0;

	if (waiting >= SOON_DEVICES)
		return turn(d, waiting, random_number());
	return backoff_next(&d->backoff, ceiling(d, failure), random_number());
}

static bool asks_now(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_CONNECTING)
			return true;
	return false;
}

/* Is another device asking the server of D at this moment? */
static bool is_asked(const struct device *d)
{
	const struct manager *m = d->manager;

	if (!d->target.n_servers)
		return false;
	for (size_t i = 0; i < m->n_devices; i++) {
		const struct device *other = m->devices[i];

		if (other != d && other->target.n_servers && asks_now(other) &&
		    server_same(target_server(&other->target), target_server(&d->target)))
			return true;
	}
	return false;
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;
	unsigned waiting = d->asks_soon ? manager_waiting(d->manager, d) : 0;

	if (waiting >= SOON_DEVICES && is_asked(d)) {
		schedule(d, turn(d, waiting, random_number()));
		return 0;
	}
	d->retry_timer = sd_event_source_disable_unref(d->retry_timer);
	d->retry_at_usec = 0;
	device_event(d, EV_START, NULL);
	return 0;
}

void retry_after_failure(struct device *d, enum connect_failure failure)
{
	d->all_attempts++;
	if (d->attempts++ == 0)
		d->trouble_usec = now_usec();
	if (one_server_next(d)) {
		retry_now(d);
		return;
	}
	d->asks_soon = failure == FAILURE_SOON;
	if (failure == FAILURE_PERMANENT) {
		d->backoff.failures++;
		schedule(d, d->backoff.max_usec);
	} else {
		schedule(d, pause_usec(d, failure));
	}
}

void retry_now(struct device *d)
{
	d->asks_soon = false;
	schedule(d, 0);
}

static uint64_t brief_pause_usec(struct backoff *b, uint64_t alive_usec, uint64_t now)
{
	struct backoff series = { .first_usec = BRIEF_PAUSE_USEC,
				  .max_usec = BRIEF_PAUSE_MAX_USEC };

	if (!alive_usec || now - alive_usec >= BRIEF_USEC)
		b->brief = 0;
	else if (alive_usec > b->lost_usec)
		b->brief++;			/* else it has died with the one before */
	b->lost_usec = now;
	if (b->brief < 2)
		return 0;
	series.failures = b->brief - 2;
	return backoff_next(&series, UINT64_MAX, 0);
}

void retry_after_loss(struct device *d, uint64_t alive_usec)
{
	uint64_t pause = brief_pause_usec(&d->backoff, alive_usec, now_usec());

	if (d->retry_timer)
		return;
	d->asks_soon = false;
	if (pause)
		(void)one_server_next(d);	/* another may be better */
	schedule(d, pause);
}

void retry_stop(struct device *d)
{
	d->retry_timer = sd_event_source_disable_unref(d->retry_timer);
	d->retry_at_usec = 0;
	d->queued = false;
}

/* It has no address yet, and as many resolvers are at work as may be. */
static bool waits_for_resolver(const struct device *d)
{
	return d->target.n_servers == 0 && d->manager->n_resolvers >= RESOLVERS_MAX;
}

/* After the one that was served last.  A device may go while its event is handled: ask for
 * each by its place. */
static void serve(struct manager *m, bool of_asked)
{
	for (size_t n = m->n_devices; n && m->n_devices && !connectors_busy(m->connectors); n--) {
		struct device *d = m->devices[m->turn % m->n_devices];

		m->turn = m->turn % m->n_devices + 1;
		if (!d->queued || waits_for_resolver(d) || is_asked(d) != of_asked)
			continue;
		d->queued = false;
		device_event(d, EV_START, NULL);
	}
}

/* A server that does not answer holds a connector for as long as connect-timeout: devices of
 * such that none is asking come first, and are held up by no other server. */
void retry_queued(struct manager *m)
{
	serve(m, false);
	serve(m, true);
}

void retry_hurry(struct device *d)
{
	uint64_t now = now_usec();

	if (now - d->hurried_usec < HURRY_PAUSE_USEC)
		return;
	d->hurried_usec = now;
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_CONNECTING)
			link_reset(&d->links[i]);
	backoff_reset(&d->backoff);
	retry_now(d);
}

static bool has_server(const struct device *d, const struct server *server)
{
	for (size_t i = 0; i < d->target.n_servers; i++)
		if (server_same(&d->target.servers[i], server))
			return true;
	return false;
}

void retry_server_answers(struct manager *m, const struct server *server, bool well)
{
	for (size_t i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];

		if (d->retry_at_usec && !d->refusal[0] && (well || d->asks_soon) &&
		    has_server(d, server))
			retry_now(d);
	}
}

void retry_reset(struct device *d)
{
	backoff_reset(&d->backoff);
	d->round = 0;
	d->attempts = 0;
	d->last_error[0] = '\0';
	d->refusal[0] = '\0';
}

static void on_resolved(int error, const char *message, struct target *target,
			void *userdata)
{
	struct device *d = userdata;
	bool first = d->target.n_servers == 0;

	d->resolver = NULL;
	manager_kick(d->manager);
	if (error < 0) {
		if (first)
			device_event(d, EV_FAILED, &(struct event_detail){
				.failure = error == -EHOSTUNREACH ? FAILURE_BACKOFF
								  : FAILURE_PERMANENT,
				.text = message });
		else
			device_log(d, LOG_DEBUG, "%s", message);
		return;
	}
	if (first) {
		d->target = *target;
		device_event(d, EV_START, NULL);
	} else {
		one_server_renew(d, target);
	}
}

int retry_resolve(struct device *d)
{
	int r;

	if (d->resolver)
		return 0;
	d->resolve_again = false;
	if (d->target.n_servers && (!target_has_names(&d->target) ||
				    now_usec() - d->resolved_usec < RESOLVE_PAUSE_USEC))
		return 0;
	d->resolved_usec = now_usec();
	r = resolver_start(d->manager->event, d->name, &d->keys, d->manager->options.spawner,
			   &d->manager->n_resolvers, on_resolved, d, &d->resolver);
	if (r == -EAGAIN)
		d->queued = d->target.n_servers == 0;
	return r;
}
