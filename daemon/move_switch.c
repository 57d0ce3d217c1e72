/* STATE_MOVING: the old links die, the new ones take their places, or else the other way. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/device_tls.h"
#include "daemon/errand.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/news.h"
#include "daemon/outage.h"
#include "daemon/retry.h"
#include "daemon/save.h"
#include "daemon/transitions.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

#define TURN_PAUSE_USEC		(20 * USEC_PER_MSEC)	/* until the kernel call is over */

static enum device_state going(struct device *d);
static enum device_state go_back(struct device *d, const char *reason);

/* It may have grown by a call that was under way when the move began. */
static bool has_grown(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (device_usable_size(d, d->move->links[i].info.size) < d->size)
			return true;
	return false;
}

static bool candidates_live(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (d->move->links[i].state != LINK_READY ||
		    link_hung_up(&d->move->links[i]))
			return false;
	return true;
}

/* Those without a descriptor first: the kernel may not be able to. */
static bool cut_lost_links(struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++) {
		struct link *l = &d->links[i];

		if (l->state == LINK_ALIVE && l->fd < 0 && link_cut(l, "moving") < 0)
			return false;
	}
	return true;
}

static void cut_links(struct device *d)
{
	links_take_back(d);
	for (size_t i = 0; i < d->n_links; i++) {
		struct link *l = &d->links[i];

		if (l->state == LINK_ALIVE) {
			link_cut(l, NULL);
			d->dead_links++;
		}
		link_reset(l);
	}
}

/* Every write that the server has completed, if they are counted; with the links dead it grows
 * no more. */
static bool read_writes(const struct device *d, uint64_t *ret)
{
	struct nbdk_info info;

	if (nbdk_sysfs_read((unsigned)d->index, &info) < 0)
		return false;
	*ret = info.writes;
	return true;
}

/* Keys and target of the device and of the move change places, with what is known of their
 * servers, and so does the server that a reconnect goes to. */
static void exchange(struct device *d)
{
	struct move *mv = d->move;
	struct device_keys keys = d->keys;
	struct target target = d->target;
	struct ktls_trust ktls = d->ktls;

	d->resolver = resolver_cancel(d->resolver);
	d->resolve_again = false;
	d->keys = mv->keys;
	d->target = mv->target;
	d->ktls = mv->ktls;
	mv->keys = keys;
	mv->target = target;
	mv->ktls = ktls;
	mv->secrets = device_tls_exchange(d, mv->secrets);
	device_apply_keys(d);
}

static void place_candidates(struct device *d)
{
	struct move *mv = d->move;

	for (size_t i = 0; i < d->n_links; i++) {
		d->links[i] = mv->links[i];
		d->links[i].candidate = false;
		mv->links[i] = (struct link){ .device = d, .fd = -1, .candidate = true };
	}
}

/* How long I/O waits without a link until it is known with which server the device stays: what
 * begins to wait before that keeps it. */
static uint64_t on_trial_usec(const struct device *d)
{
	uint64_t longer = MAX(d->keys.dead_timeout_usec, d->move->keys.dead_timeout_usec);

	return MAX(longer, MOVE_WAIT_USEC);
}

/* Does the next nbdd find the server that D goes to now? */
static bool is_saved(struct device *d, char reason[static 128])
{
	save_device(d);
	if (d->save_error < 0)
		snprintf(reason, 128, "its state cannot be saved (%s): a crash would take it "
			 "back to the old server", strerror(-d->save_error));
	return d->save_error >= 0;
}

/* Once the kernel knows that the old links are dead, nothing is completed by the old server
 * any more, and the new one has the same data: either is right.  From the next call on only
 * the new one is, for it may complete a write: that has to be on file before. */
static enum device_state hand_over(struct device *d)
{
	char reason[128];
	uint64_t wait;
	int r;

	if (d->call || !links_settled(d))
		return STATE_MOVING;
	if (!link_still_attached(d))
		return device_lost(d, &(struct event_detail){
			.text = "another program has disconnected it" });
	if (!d->move->counts || !read_writes(d, &d->move->writes))
		d->move->writes = UINT64_MAX;
	exchange(d);
	place_candidates(d);
	d->move->phase = MOVE_CHECK;
	wait = on_trial_usec(d);
	d->waits_longer = wait != d->keys.dead_timeout_usec;
	if (!is_saved(d, reason))
		return go_back(d, reason);
	r = kernel_reconnect(d, wait);
	if (r < 0)
		return move_kernel_failed(d, &(struct event_detail){ .error = r });
	d->move->asked = true;
	return STATE_MOVING;
}

enum device_state move_switch(struct device *d, const struct event_detail *e)
{
	struct move *mv = d->move;
	char reason[128];

	if (!mv)
		return d->state;
	if (d->call) {
		move_again(d, TURN_PAUSE_USEC, move_switch_now);
		return d->state;
	}
	if (!mv->flushed && device_links_alive(d))	/* it came back, and the move is forced */
		return move_flush(d);
	if (!candidates_live(d)) {
		move_fail(d, CONTROL_ERROR_CONNECT_FAILED,
			  "the new server has closed its connection again");
		return d->state;
	}
	if (has_grown(d)) {
		move_fail(d, CONTROL_ERROR_NOT_THE_SAME, "the device has grown meanwhile, and the "
			  "new server was asked before: try again");
		return d->state;
	}
	if (!is_saved(d, reason)) {
		move_fail(d, CONTROL_ERROR_FAILED, "%s", reason);
		return d->state;
	}
	if (!cut_lost_links(d)) {
		move_fail(d, CONTROL_ERROR_FAILED, "the descriptor of its connection was lost "
			  "when an earlier nbdd was killed, and this kernel cannot end it "
			  "without");
		return d->state;
	}
	retry_stop(d);
	mv->timer = sd_event_source_disable_unref(mv->timer);
	mv->cut_usec = now_usec();
	cut_links(d);
	mv->phase = MOVE_SWITCH;
	return hand_over(d);
}

/* ---- the way back ------------------------------------------------------------------ */

static bool dead_timeout_over(const struct device *d)
{
	return d->outages.began_usec && d->keys.dead_timeout_usec != USEC_INFINITY &&
	       now_usec() - d->outages.began_usec >= d->keys.dead_timeout_usec;
}

/* Back to the old server, unless the new one has completed a write, which the old one may not
 * have, or may have done so.  COUNTS: 0 if writes were counted all the time, else -errno. */
static enum device_state gone_back(struct device *d, int counts)
{
	struct move *mv = d->move;
	char reason[DEVICE_REASON_MAX];
	uint64_t writes;
	bool known, stays;

	known = counts >= 0 && mv->writes != UINT64_MAX && read_writes(d, &writes);
	stays = mv->asked && (!known || writes != mv->writes);
	if (!stays) {
		exchange(d);
		d->waits_longer = true;
	}
	d->timeout_due |= stays && d->keys.timeout_usec != mv->keys.timeout_usec;
	memcpy(reason, mv->reason, sizeof(reason));
	d->grow_to = 0;
	if (stays)
		move_fail(d, CONTROL_ERROR_FAILED, "the new server was lost: %s; it %s, so the "
			  "device waits for it", reason, known ? "has taken writes already" :
			  "may have taken writes (queue/iostats is 0 or cannot be read: none are "
			  "counted)");
	else
		move_fail(d, CONTROL_ERROR_FAILED, "%s; back to the old server", reason);
	device_set_error(d, "%s", reason);
	if (!d->outages.began_usec)
		outage_begin(d, reason);
	else
		outage_resume(d);	/* with the dead-timeout of the keys that it has now */
	retry_now(d);
	if (d->detach_wanted)
		return detach_begin(d, NULL);
	return dead_timeout_over(d) ? STATE_FAILING : STATE_RECONNECTING;
}

static void on_counts(struct device *d, const struct errand_result *result)
{
	device_event(d, EV_MOVE_CHECKED, &(struct event_detail){ .error = result->error });
}

/* The new links are to die; then it is seen whether writes are counted still. */
static enum device_state going(struct device *d)
{
	int r;

	if (d->call || d->move->errand || !links_settled(d))
		return STATE_MOVING;
	if (!d->move->asked || !d->move->counts)
		return gone_back(d, -ENODATA);
	r = errand_counts(d, &d->move->errand, on_counts);
	return r < 0 ? gone_back(d, r) : STATE_MOVING;
}

static enum device_state go_back(struct device *d, const char *reason)
{
	struct move *mv = d->move;

	mv->phase = MOVE_RETURN;
	mv->errand = errand_cancel(mv->errand);
	snprintf(mv->reason, sizeof(mv->reason), "%s", reason);
	cut_links(d);
	return going(d);
}

/* ---- events ------------------------------------------------------------------------ */

enum device_state move_link_dead(struct device *d, const struct event_detail *e)
{
	char reason[DEVICE_REASON_MAX];

	if (e->link) {
		snprintf(reason, sizeof(reason), "connection to %s lost: %s", e->link->peer,
			 e->text);
		return go_back(d, reason);
	}
	d->kernel_dead++;
	if (d->move->phase == MOVE_SWITCH)
		return hand_over(d);
	return d->move->phase == MOVE_RETURN ? going(d) : STATE_MOVING;
}

static void on_first_read(struct device *d, const struct errand_result *result)
{
	device_event(d, EV_MOVE_CHECKED, &(struct event_detail){ .error = result->error });
}

enum device_state move_kernel_done(struct device *d, const struct event_detail *e)
{
	struct move *mv = d->move;
	int r;

	if (mv->phase == MOVE_SWITCH)		/* of a call from before */
		return hand_over(d);
	if (mv->phase == MOVE_RETURN)
		return going(d);
	for (size_t i = 0; i < d->n_links; i++)
		link_alive(&d->links[i]);
	d->dead_links = d->kernel_dead = 0;
	r = errand_first_read(d, &mv->errand, on_first_read);
	return r < 0 ? go_back(d, strerror(-r)) : STATE_MOVING;
}

enum device_state move_kernel_failed(struct device *d, const struct event_detail *e)
{
	char reason[DEVICE_REASON_MAX];

	if (!link_still_attached(d))
		return device_lost(d, &(struct event_detail){
			.text = "another program has disconnected it" });
	snprintf(reason, sizeof(reason), "kernel did not take the new connections: %s",
		 strerror(-e->error));
	return go_back(d, reason);
}

static void settle_down(struct device *d)
{
	struct move *mv = d->move;
	uint64_t pause = now_usec() - mv->cut_usec;
	char text[FORMAT_MAX];

	news_tell(d, NEWS_MOVED, "moved to %s: %u blocks compared, %u of them written "
		   "meanwhile; I/O waited %s", d->links[0].peer,
		   mv->n_compared + mv->n_changing, mv->n_changing, format_usec(text, pause));
	d->timeout_due |= d->keys.timeout_usec != mv->keys.timeout_usec;
	d->settings_due = true;
	move_end(d, NULL, mv->warning, pause);
	move_free(d);
	outage_end(d);
	retry_reset(d);
	for (size_t i = 0; i < d->n_links; i++)
		link_set_keepalive(&d->links[i]);
	links_restore(d);
	links_grow(d);
}

enum device_state move_checked(struct device *d, const struct event_detail *e)
{
	char reason[DEVICE_REASON_MAX];

	if (d->move->phase == MOVE_RETURN)
		return gone_back(d, e->error);
	if (e->error < 0) {
		snprintf(reason, sizeof(reason), "the first read over the new connection: %s",
			 strerror(-e->error));
		return go_back(d, reason);
	}
	settle_down(d);
	d->state = STATE_CONNECTED;	/* where detach_begin stays while a call is under way */
	return d->detach_wanted ? detach_begin(d, NULL) : d->state;
}
