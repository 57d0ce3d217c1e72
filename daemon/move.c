/* Before a device moves: is the new server the right one, and all ready there? */
#include "daemon/move.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/errand.h"
#include "daemon/identity.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/tls_secrets.h"
#include "daemon/transitions.h"
#include "lib/util/clock.h"

#define ROUNDS_MAX		5	/* of comparison: somebody may write a block meanwhile */
#define ROUND_PAUSE_USEC	(200 * USEC_PER_MSEC)
#define NAME_PAUSE_USEC		(200 * USEC_PER_MSEC)	/* many may wait, a reload's */
#define TURN_PAUSE_USEC		(20 * USEC_PER_MSEC)	/* until something is free */

static const char *const phase_names[N_MOVE_PHASES] = {
	[MOVE_RESOLVE] = "resolving", [MOVE_SAMPLE] = "reading", [MOVE_CONNECT] = "connecting",
	[MOVE_COMPARE] = "comparing", [MOVE_JOIN] = "connecting", [MOVE_FLUSH] = "flushing",
	[MOVE_PREPARE] = "preparing", [MOVE_SWITCH] = "switching", [MOVE_CHECK] = "checking",
	[MOVE_RETURN] = "returning",
};

const char *move_phase_name(const struct device *d)
{
	return phase_names[d->move->phase];
}

int move_new(struct device *d, const struct device_keys *keys, bool force, move_done_fn done,
	     void *userdata)
{
	struct move *mv = calloc(1, sizeof(*mv));

	if (!mv)
		return -ENOMEM;
	if (device_keys_copy(&mv->keys, keys) < 0) {
		free(mv);
		return -ENOMEM;
	}
	mv->ktls = d->ktls;
	mv->force = force;
	mv->done = done;
	mv->userdata = userdata;
	for (size_t i = 0; i < CONF_CONNECTIONS_MAX; i++)
		mv->links[i] = (struct link){ .device = d, .fd = -1, .candidate = true };
	d->move = mv;
	return 0;
}

void move_end(struct device *d, const char *error, const char *text, uint64_t pause_usec)
{
	struct move *mv = d->move;

	if (mv->done)
		STEAL_PTR(mv->done)(d, error, text, pause_usec, mv->userdata);
}

void move_free(struct device *d)
{
	struct move *mv = d->move;

	if (!mv)
		return;
	move_end(d, CONTROL_ERROR_FAILED, "the device is gone", 0);
	for (size_t i = 0; i < CONF_CONNECTIONS_MAX; i++)
		link_reset(&mv->links[i]);
	resolver_cancel(mv->resolver);
	errand_cancel(mv->errand);
	sd_event_source_disable_unref(mv->timer);
	tls_secrets_free(mv->secrets);
	target_deinit(&mv->target);
	device_keys_deinit(&mv->keys);
	free(mv);
	d->move = NULL;
}

void move_forget(struct device *d)
{
	d->move->done = NULL;
	if (d->state != STATE_MOVING && !d->manager->leaving)
		move_cancel(d, "whoever asked for it has left");
}

void move_fail(struct device *d, const char *error, const char *format, ...)
{
	char text[DEVICE_REASON_MAX];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	device_log(d, LOG_ERR, "not moved: %s", text);
	move_end(d, error, text, 0);
	move_free(d);
	links_restore(d);
	links_grow(d);
}

void move_cancel(struct device *d, const char *why)
{
	if (d->move)
		move_fail(d, CONTROL_ERROR_FAILED, "%s", why);
}

void move_server_lost(struct device *d)
{
	if (d->move && d->move->compares && d->move->phase < MOVE_SWITCH)
		move_fail(d, CONTROL_ERROR_FAILED, "the connection to its server was lost "
			  "meanwhile, and the data could no longer be compared; move it again "
			  "to go without that");
}

void move_server_back(struct device *d)
{
	struct move *mv = d->move;

	if (mv && !mv->force && !mv->compares && mv->phase > MOVE_SAMPLE &&
	    mv->phase < MOVE_SWITCH)
		move_fail(d, CONTROL_ERROR_FAILED, "its server is back, and the data has not been "
			  "compared: move it again");
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;
	enum device_state (*again)(struct device *) = d->move->again;

	d->move->timer = sd_event_source_disable_unref(d->move->timer);
	again(d);
	return 0;
}

void move_again(struct device *d, uint64_t usec, enum device_state (*fn)(struct device *d))
{
	struct move *mv = d->move;

	mv->timer = sd_event_source_disable_unref(mv->timer);
	mv->again = fn;
	if (sd_event_add_time_relative(d->manager->event, &mv->timer, CLOCK_MONOTONIC, usec,
				       USEC_PER_MSEC, on_timer, d) < 0)
		move_fail(d, CONTROL_ERROR_FAILED, "out of memory");
}

/* ---- connections ------------------------------------------------------------------- */

static enum device_state join(struct device *d);
static enum device_state sample(struct device *d);

static void on_secrets(const char *error, bool late, void *userdata)
{
	struct device *d = userdata;

	if (error)
		move_fail(d, CONTROL_ERROR_CONNECT_FAILED, "%s", error);
	else
		d->move->again(d);
}

/* 0; -EAGAIN, and FN is called when keys and certificates have been read; or -errno. */
static int read_secrets(struct device *d, enum device_state (*fn)(struct device *d))
{
	struct move *mv = d->move;
	int r = 0;

	mv->again = fn;
	if (!tls_wanted(&mv->keys, &mv->target))
		return 0;
	if (!mv->secrets)
		r = tls_secrets_new(d->manager, d->name, on_secrets, d, &mv->secrets);
	return r < 0 ? r : tls_secrets_ready(mv->secrets, &mv->keys, &mv->target);
}

/* Start one candidate; FN comes back to it when it must wait. */
static bool start_candidate(struct device *d, struct link *l, const struct samples *s,
			    enum device_state (*fn)(struct device *d))
{
	struct move *mv = d->move;
	struct tls_plan tls;
	int r = read_secrets(d, fn);

	if (r == -EAGAIN)
		return false;
	if (r >= 0) {
		tls_plan_make(&tls, &mv->keys, &mv->target, mv->secrets,
			      mv->ktls.distrust);
		tls.load = !manager_any_out(d->manager);
		mv->target.preinit_size = mv->keys.preinit ? mv->keys.size : 0;
		r = link_connect_candidate(l, &mv->target, &tls,
					   mv->keys.connect_timeout_usec, s);
	}
	if (r == -EAGAIN || r == -EBUSY)	/* connectors, readers of keys */
		move_again(d, TURN_PAUSE_USEC, fn);
	else if (r < 0)
		move_fail(d, CONTROL_ERROR_FAILED, "cannot start a connector: %s",
			  strerror(-r));
	return r >= 0;
}

static enum device_state connect_first(struct device *d)
{
	struct move *mv = d->move;

	mv->phase = MOVE_CONNECT;
	start_candidate(d, &mv->links[0], mv->compares ? &mv->samples : NULL, connect_first);
	return d->state;
}

static enum device_state join(struct device *d)
{
	struct move *mv = d->move;
	bool all = true;

	mv->phase = MOVE_JOIN;
	for (size_t i = 1; i < d->n_links; i++) {
		all = all && mv->links[i].state == LINK_READY;
		if (mv->links[i].state == LINK_IDLE &&
		    !start_candidate(d, &mv->links[i], NULL, join))
			return d->state;
	}
	return all ? move_flush(d) : d->state;
}

void move_connect(struct device *d)
{
	if (d->move->phase == MOVE_JOIN)
		join(d);
	else
		connect_first(d);
}

enum device_state move_candidate_failed(struct device *d, const struct event_detail *e)
{
	struct move *mv = d->move;

	if (mv->phase == MOVE_CONNECT && mv->round == 0 &&
	    mv->target.current + 1 < mv->target.n_servers) {
		device_log(d, LOG_INFO, "move: %s", e->text);
		mv->target.current++;
		return connect_first(d);
	}
	move_fail(d, CONTROL_ERROR_CONNECT_FAILED, "%s", e->text);
	return d->state;
}

/* ---- the data ---------------------------------------------------------------------- */

/* Something is not the same, or was written meanwhile: look at that again, over a new
 * connection, since the server may allow no more than there are. */
static enum device_state compare_again(struct device *d)
{
	struct move *mv = d->move;

	mv->round++;
	link_reset(&mv->links[0]);
	move_again(d, ROUND_PAUSE_USEC, sample);
	return d->state;
}

static void on_after(struct device *d, const struct errand_result *result)
{
	struct move *mv = d->move;
	uint32_t had = mv->samples.n;
	struct comparison c;

	if (result->error < 0) {
		move_fail(d, CONTROL_ERROR_FAILED, "cannot read the device: %s (--force moves "
			  "it without a look at its data)", strerror(-result->error));
		return;
	}
	samples_compare(&mv->samples, &mv->before, &mv->theirs, &result->digests, &c);
	mv->n_compared += had - mv->samples.n;
	if (mv->samples.n && mv->round + 1 < ROUNDS_MAX) {
		compare_again(d);
	} else if (c.different) {
		move_fail(d, CONTROL_ERROR_NOT_THE_SAME, "the server has other data: of %u "
			  "blocks compared %u differ, the first at byte %llu (--force moves "
			  "nevertheless)", mv->n_compared + c.different, c.different,
			  (unsigned long long)c.first_different);
	} else {
		mv->n_changing = c.changing;
		join(d);
	}
}

static void start_errand(struct device *d, errand_done_fn done)
{
	int r = errand_digests(d, &d->move->errand, done);

	if (r < 0)
		move_fail(d, CONTROL_ERROR_FAILED, "cannot start a process: %s", strerror(-r));
}

/* A server's name may have the addresses of several machines. */
static bool is_who_was_compared(struct move *mv, const struct link *l)
{
	if (mv->round == 0)
		memcpy(mv->peer, l->peer, sizeof(mv->peer));
	return strcmp(mv->peer, l->peer) == 0;
}

enum device_state move_candidate(struct device *d, const struct event_detail *e)
{
	struct move *mv = d->move;
	char reason[DEVICE_REASON_MAX];

	if (identity_differs(d, &e->link->info, reason)) {
		move_fail(d, CONTROL_ERROR_NOT_THE_SAME, "%s", reason);
	} else if (!is_who_was_compared(mv, e->link)) {
		move_fail(d, CONTROL_ERROR_FAILED, "some of the data was compared with %s, and "
			  "now %s answers: try again", mv->peer, e->link->peer);
	} else if (mv->phase == MOVE_JOIN || !mv->compares) {
		return join(d);
	} else if (e->digests->n != mv->samples.n) {
		move_fail(d, CONTROL_ERROR_FAILED, "the connector sent %u digests, expected %u",
			  e->digests->n, mv->samples.n);
	} else {
		mv->theirs = *e->digests;
		mv->phase = MOVE_COMPARE;
		start_errand(d, on_after);
	}
	return d->state;
}

static void on_before(struct device *d, const struct errand_result *result)
{
	if (result->error < 0) {
		move_fail(d, CONTROL_ERROR_FAILED, "cannot flush and read the device: %s "
			  "(--force moves it without a look at its data)",
			  strerror(-result->error));
		return;
	}
	d->move->before = result->digests;
	connect_first(d);
}

static enum device_state sample(struct device *d)
{
	struct move *mv = d->move;

	mv->phase = MOVE_SAMPLE;
	mv->compares = !mv->force && device_links_alive(d);
	if (mv->compares && mv->keys.preinit) {
		move_fail(d, CONTROL_ERROR_FAILED, "a server without a handshake (preinit) "
			  "cannot be compared (--force moves without)");
		return d->state;
	}
	if (!mv->compares)
		return connect_first(d);
	start_errand(d, on_before);
	return d->state;
}

/* ---- first and last ----------------------------------------------------------------- */

static void on_resolved(int error, const char *message, struct target *target,
			void *userdata)
{
	struct device *d = userdata;

	d->move->resolver = NULL;
	manager_kick(d->manager);
	if (error < 0) {
		move_fail(d, CONTROL_ERROR_CONNECT_FAILED, "%s", message);
		return;
	}
	d->move->target = *target;
	samples_choose(&d->move->samples, d->size, d->block_size);
	sample(d);
}

static enum device_state begin(struct device *d)
{
	struct manager *m = d->manager;
	struct move *mv = d->move;
	int r;

	mv->phase = MOVE_RESOLVE;
	r = resolver_start(m->event, d->name, &mv->keys, m->options.spawner, &m->n_resolvers,
			   on_resolved, d, &mv->resolver);
	if (r == -EAGAIN)
		move_again(d, NAME_PAUSE_USEC, begin);
	else if (r < 0)
		move_fail(d, CONTROL_ERROR_FAILED, "cannot resolve the server's name: %s",
			  child_strerror(r));
	return d->state;
}

enum device_state move_begin(struct device *d, const struct event_detail *e)
{
	return begin(d);
}

enum device_state move_switch_now(struct device *d)
{
	device_event(d, EV_MOVE_SWITCH, NULL);
	return STATE_MOVING;		/* nobody looks: it may be gone, and freed */
}

/* With a short dead-timeout I/O must not fail in the moment without a link. */
static enum device_state prepare(struct device *d)
{
	int r;

	if (d->keys.dead_timeout_usec >= MOVE_WAIT_USEC || !device_links_alive(d)) {
		move_again(d, 0, move_switch_now);
	} else if (d->call) {
		move_again(d, TURN_PAUSE_USEC, prepare);
	} else {
		d->move->phase = MOVE_PREPARE;	/* not before: the end of this call counts */
		d->waits_longer = true;
		r = kernel_configure(d, MOVE_WAIT_USEC);
		if (r < 0)
			move_fail(d, CONTROL_ERROR_FAILED, "%s", strerror(-r));
	}
	return d->state;
}

static void on_flushed(struct device *d, const struct errand_result *result)
{
	const char *why = result->error == -ETIMEDOUT ? "that takes too long"
						      : strerror(-result->error);
	struct move *mv = d->move;
	char *w = mv->warning;

	mv->flushed = true;
	if (result->error < 0 && !mv->force) {
		move_fail(d, CONTROL_ERROR_FAILED, "cannot flush the device: %s (--force moves "
			  "it nevertheless)", why);
		return;
	}
	if (result->error < 0)
		snprintf(w, sizeof(mv->warning), "the device could not be flushed on the old "
			 "server: %s", why);
	else if (result->unhurried)
		snprintf(w, sizeof(mv->warning), "the servers are too slow to have requests in "
			 "flight sent again at once; they may take as long as requeue-interval");
	prepare(d);
}

static void on_counts(struct device *d, const struct errand_result *result)
{
	struct move *mv = d->move;
	int r;

	mv->counts = result->error >= 0;
	if (!device_links_alive(d)) {
		prepare(d);
		return;
	}
	d->tuning = errand_cancel(d->tuning);
	d->settings_due = true;
	r = errand_hasten(d, &mv->errand, on_flushed);
	if (r < 0)
		move_fail(d, CONTROL_ERROR_FAILED, "cannot start a process: %s", strerror(-r));
}

enum device_state move_flush(struct device *d)
{
	int r;

	d->move->timer = sd_event_source_disable_unref(d->move->timer);	/* it was join's */
	d->move->phase = MOVE_FLUSH;
	r = errand_counts(d, &d->move->errand, on_counts);
	if (r < 0)
		move_fail(d, CONTROL_ERROR_FAILED, "cannot start a process: %s", strerror(-r));
	return d->state;
}
