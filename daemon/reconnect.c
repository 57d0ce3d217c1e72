/* An attached device: links die, new connections take their places. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/control.h"
#include "daemon/errand.h"
#include "daemon/identity.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/news.h"
#include "daemon/outage.h"
#include "daemon/retry.h"
#include "daemon/save.h"
#include "daemon/status.h"
#include "daemon/store.h"
#include "daemon/transitions.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"
#include "netlink/nbdk.h"

/* How long the kernel may take to notice what we saw, when its event was lost: it reads
 * from a socket that is shut down, and that ends at once. */
#define SETTLE_USEC	(300 * USEC_PER_MSEC)
/* How long we may take to see what the kernel told. */
#define DOUBT_USEC	USEC_PER_SEC
#define GROW_PAUSE_USEC	USEC_PER_SEC	/* of a device that is busy */

int link_still_attached(struct device *d)
{
	_cleanup_close_ int fd = -1;
	struct nbdk_info info;
	int r;

	if (d->life_fd >= 0)
		return nbdk_life_goes_on(d->life_fd);
	fd = nbdk_life_open((unsigned)d->index);
	r = fd < 0 ? fd : nbdk_sysfs_connection((unsigned)d->index, &info);
	if (r < 0)
		return r == -ENOENT || r == -ENODEV ? 0 : r;
	if (!info.connected || (info.backend[0] && strcmp(info.backend, d->identifier) != 0))
		return 0;
	d->life_fd = STEAL_FD(fd);
	return 1;
}

static enum device_state state_by_links(const struct device *d)
{
	size_t alive = device_links_alive(d);

	if (alive == d->n_links)
		return STATE_CONNECTED;
	if (alive)
		return STATE_DEGRADED;
	return device_is_out(d) ? d->state : STATE_RECONNECTING;
}

static bool busy_link(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state != LINK_IDLE && d->links[i].state != LINK_ALIVE)
			return true;
	return false;
}

/* While no link lives one connector asks for all; then the rest follow together. */
enum device_state link_start(struct device *d, const struct event_detail *e)
{
	bool out = device_links_alive(d) == 0;
	int r = 0;

	if (!link_still_attached(d))
		return device_lost(d, &(struct event_detail){
			.text = "another program has disconnected it" });
	if (d->resolve_again)
		(void)retry_resolve(d);		/* known addresses go on being tried */
	for (size_t i = 0; i < d->n_links && r >= 0; i++) {
		if (out && busy_link(d))
			break;
		if (d->links[i].state == LINK_IDLE)
			r = link_connect(&d->links[i]);
	}
	if (r < 0 && r != -EAGAIN) {
		device_set_error(d, "cannot start a connector: %s", child_strerror(r));
		retry_after_failure(d, FAILURE_BACKOFF);
	}
	return state_by_links(d);
}

static int on_settled(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;

	d->settle_timer = sd_event_source_disable_unref(d->settle_timer);
	d->kernel_dead = d->dead_links - (d->dead_links > 0);
	device_event(d, EV_LINK_DEAD, NULL);
	return 0;
}

bool links_settled(struct device *d)
{
	if (d->kernel_dead < d->dead_links) {
		if (!d->settle_timer)
			sd_event_add_time_relative(d->manager->event, &d->settle_timer,
						   CLOCK_MONOTONIC, SETTLE_USEC,
						   USEC_PER_MSEC, on_settled, d);
		return false;
	}
	d->settle_timer = sd_event_source_disable_unref(d->settle_timer);
	return true;
}

void links_take_back(struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++) {
		struct link *l = &d->links[i];

		if (l->state == LINK_HANDED) {
			link_cut(l, NULL);
			d->kernel_dead -= d->kernel_dead > 0;	/* then it tells */
		}
		if (l->state == LINK_HANDED || l->state == LINK_READY)
			link_reset(l);
	}
}

static enum device_state cannot_save(struct device *d, int error)
{
	char text[DEVICE_REASON_MAX];

	snprintf(text, sizeof(text), "its state in %s/" STORE_DIR " is of another server, and "
		 "can neither be written (%s) nor removed (%s): a crash would take the device "
		 "back to that one", d->manager->options.runtime_dir, strerror(-d->save_error),
		 strerror(-error));
	if (strcmp(d->last_error, text) != 0)
		device_log(d, LOG_ERR, "%s", text);
	device_set_error(d, "%s", text);
	links_take_back(d);
	retry_after_failure(d, FAILURE_BACKOFF);
	return state_by_links(d);
}

static enum device_state hand_over(struct device *d)
{
	int r;

	if (d->call || !device_link_in(d, LINK_READY) || !links_settled(d))
		return state_by_links(d);
	r = save_server(d);
	if (r < 0)
		return cannot_save(d, r);
	d->waits_longer = false;
	r = kernel_reconnect(d, d->keys.dead_timeout_usec);
	if (r < 0)
		return link_kernel_failed(d, &(struct event_detail){
			.call = CALL_RECONNECT, .error = r });
	return state_by_links(d);
}

static enum device_state refuse(struct device *d, struct link *l, const char *reason)
{
	if (strcmp(reason, d->refusal) != 0)
		news_tell(d, NEWS_REFUSED, "%s; refusing to resume (make the server right again, "
			   "or detach the device)", reason);
	snprintf(d->refusal, sizeof(d->refusal), "%s", reason);
	device_set_error(d, "%s; refusing to resume", reason);
	link_reset(l);
	retry_after_failure(d, FAILURE_PERMANENT);
	if (device_links_alive(d))
		return STATE_DEGRADED;
	return d->state == STATE_FAILING ? STATE_FAILING : STATE_REFUSED;
}

enum device_state link_socket(struct device *d, const struct event_detail *e)
{
	char reason[DEVICE_REASON_MAX];

	if (identity_differs(d, &e->link->info, reason))
		return refuse(d, e->link, reason);
	return hand_over(d);
}

enum device_state link_failed(struct device *d, const struct event_detail *e)
{
	bool permanent = e->failure == FAILURE_PERMANENT;

	if (strcmp(d->last_error, e->text) != 0)
		device_log(d, permanent ? LOG_ERR : LOG_INFO, "%s", e->text);
	device_set_error(d, "%s", e->text);
	retry_after_failure(d, e->failure);
	if (d->state == STATE_REFUSED || d->state == STATE_RECONNECTING)
		return permanent ? STATE_REFUSED : STATE_RECONNECTING;
	return state_by_links(d);
}

static int on_doubt(sd_event_source *s, uint64_t usec, void *userdata);

static void doubt(struct device *d)
{
	if (d->kernel_dead > d->dead_links && device_links_alive(d) && !d->doubt_timer)
		sd_event_add_time_relative(d->manager->event, &d->doubt_timer, CLOCK_MONOTONIC,
					   DOUBT_USEC, USEC_PER_MSEC, on_doubt, d);
}

/* The kernel has given up a connection, and ours all look alive: one of them is not in use,
 * because the daemon before us was killed between giving it to the kernel and writing that
 * down.  Or it has no descriptor, and this kernel cannot be asked about a socket.  Which one
 * cannot be found out, so all are made anew; I/O waits for a moment.  Those that cannot be cut
 * either have died if the kernel has lost as many as there are.  A detach needs them first, and
 * may be refused. */
static int on_doubt(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;
	bool all;

	d->doubt_timer = sd_event_source_disable_unref(d->doubt_timer);
	for (size_t i = 0; i < d->n_links; i++)
		if (link_hung_up(&d->links[i]))
			return 0;	/* the event is on its way */
	if (d->kernel_dead <= d->dead_links)
		return 0;
	if (d->state == STATE_DETACHING) {
		doubt(d);
		return 0;
	}
	all = d->kernel_dead - d->dead_links >= device_links_alive(d);
	device_log(d, LOG_WARNING, "the kernel has lost a connection, and it is not known "
		   "which: all that can be cut are made anew");
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE)
			link_cut(&d->links[i], "made anew");
	link_find_dead(d, all);
	return 0;
}

/* A LINK_DEAD event may come before or after the hang-up of our duplicate; either way the
 * link is dead for both once we have shut it down. */
enum device_state link_dead(struct device *d, const struct event_detail *e)
{
	char reason[DEVICE_REASON_MAX];
	uint64_t alive_usec;

	if (e->link) {
		alive_usec = e->link->alive_usec;
		snprintf(reason, sizeof(reason), "connection to %s lost: %s", e->link->peer,
			 e->text);
		link_cut(e->link, NULL);
		link_reset(e->link);
		if (device_is_out(d))
			device_log(d, LOG_WARNING, "%s", reason);
		else
			news_tell(d, device_links_alive(d) ? NEWS_DEGRADED : NEWS_OUTAGE,
				  "%s", reason);
		d->dead_links++;
		if (device_links_alive(d) == 0 && !device_is_out(d)) {
			outage_begin(d, reason);
			move_server_lost(d);
		}
		retry_after_loss(d, alive_usec);
		return state_by_links(d);
	}
	d->kernel_dead++;
	doubt(d);
	return hand_over(d);
}

/* Every connection keeps the size that it was told: no request may go beyond the least.  Of
 * those that were taken over it is not known.  Bytes, or 0: it does not grow. */
static uint64_t growth(const struct device *d)
{
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < d->n_links; i++)
		least = d->links[i].state != LINK_ALIVE ? 0 :
			MIN(least, device_usable_size(d, d->links[i].info.size));
	return least > d->size ? least : 0;
}

static void on_grown_read(struct device *d, const struct errand_result *result)
{
	d->grow_to = growth(d);
	if (result->error == -ENODATA)
		device_log(d, LOG_WARNING, "not grown: its queue/iostats is 0, and requests in "
			   "flight cannot be seen");
	if (result->error < 0 || d->call || d->move || !d->grow_to)
		return;		/* the next connection begins anew, or the end of the move */
	if (kernel_resize(d, d->grow_to) < 0)
		device_log(d, LOG_WARNING, "no memory to grow the device now");
}

static int on_grow_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;

	d->grow_timer = sd_event_source_disable_unref(d->grow_timer);
	links_grow(d);
	return 0;
}

/* However long that lasts: to freeze a queue with requests in flight is to rely on its server. */
static void grow_later(struct device *d)
{
	if (!d->grows_late)
		device_log(d, LOG_NOTICE, "it grows as soon as it has no request in flight");
	d->grows_late = true;
	d->grow_timer = sd_event_source_disable_unref(d->grow_timer);
	sd_event_add_time_relative(d->manager->event, &d->grow_timer, CLOCK_MONOTONIC,
				   GROW_PAUSE_USEC, USEC_PER_MSEC, on_grow_timer, d);
}

/* Resizing freezes the queue: only once a read has come through the new connection.  Not beside
 * a move, whose server has been asked for the size that the device has. */
void links_grow(struct device *d)
{
	d->grow_to = growth(d);
	if (!d->grow_to || d->errand || d->move || d->detach_wanted)
		return;
	if (errand_before_growing(d, on_grown_read) < 0)
		device_log(d, LOG_WARNING, "cannot start the read that precedes growing");
}

/* Newer kernels freeze the queue for a setting: only while a link lives.  How long requests
 * wait for one is none of the queue's, and is told at any time. */
void links_restore(struct device *d)
{
	bool alive = device_links_alive(d);

	if (d->move || d->detach_wanted)
		return;
	if (!d->waits_longer && !(alive && d->timeout_due)) {
		if (alive)
			errand_settings_due(d);	/* which a new timeout would undo */
	} else if (!d->call && kernel_configure(d, d->keys.dead_timeout_usec) >= 0) {
		d->waits_longer = false;
	}
}

enum device_state links_resume(struct device *d)
{
	static const char reason[] = "connection lost while the device was to be detached";
	size_t alive = device_links_alive(d);

	d->settings_due = true;
	/* What they waited for may have come when nobody looked. */
	links_take_back(d);
	if (alive) {
		outage_end(d);
	} else if (d->outages.began_usec) {
		outage_resume(d);
	} else {
		news_tell(d, NEWS_OUTAGE, "%s", reason);
		outage_begin(d, reason);
	}
	if (alive < d->n_links)
		retry_now(d);
	links_restore(d);
	links_grow(d);
	return alive == d->n_links ? STATE_CONNECTED : alive ? STATE_DEGRADED
							     : STATE_RECONNECTING;
}

/* A connection that came meanwhile, and was told less, is looked at anew. */
static void resized(struct device *d, uint64_t size)
{
	char old[FORMAT_MAX], new[FORMAT_MAX];

	news_tell(d, NEWS_GROWN, "grown from %s to %s", format_size(old, d->size),
		   format_size(new, size));
	d->size = d->info.size = size;
	d->grow_to = 0;
	d->grows_late = false;
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_READY &&
		    device_usable_size(d, d->links[i].info.size) < size) {
			link_reset(&d->links[i]);
			retry_now(d);
		}
}

enum device_state link_kernel_done(struct device *d, const struct event_detail *e)
{
	enum device_state state;
	bool was_out = device_is_out(d);

	if (e->call == CALL_RESIZE)
		resized(d, e->size);
	for (size_t i = 0; i < d->n_links && e->call == CALL_RECONNECT; i++) {
		if (d->links[i].state != LINK_HANDED)
			continue;
		link_alive(&d->links[i]);
		d->dead_links -= d->dead_links > 0;
		d->kernel_dead -= d->kernel_dead > 0;
	}
	if (d->detach_wanted)
		return detach_begin(d, NULL);
	if (e->call == CALL_CONFIGURE && d->move && d->move->phase == MOVE_PREPARE)
		return move_switch(d, e);
	if (was_out && device_links_alive(d)) {
		outage_end(d);
		move_server_back(d);
		manager_server_back(d->manager, target_server(&d->target)->host);
	}
	state = state_by_links(d);
	if (state == STATE_CONNECTED) {
		retry_reset(d);
		d->dead_links = d->kernel_dead = 0;
		links_restore(d);
		links_grow(d);
	} else {
		if (state == STATE_DEGRADED)
			retry_now(d);
		links_restore(d);	/* it is not left to the connection that is missing */
	}
	hand_over(d);
	return state;
}

enum device_state link_kernel_failed(struct device *d, const struct event_detail *e)
{
	if (e->call == CALL_RECONNECT)
		links_take_back(d);
	if (d->detach_wanted)
		return detach_begin(d, NULL);
	if (e->call == CALL_RESIZE && e->error == -EAGAIN) {
		grow_later(d);
		return hand_over(d);
	}
	if (e->call == CALL_RESIZE) {
		device_log(d, LOG_ERR, "cannot grow the device: %s", strerror(-e->error));
		d->grow_to = 0;
		return hand_over(d);
	}
	if (e->call == CALL_CONFIGURE) {
		device_log(d, LOG_ERR, "cannot set dead-timeout: %s", strerror(-e->error));
		if (d->move && d->move->phase == MOVE_PREPARE)
			move_cancel(d, "the kernel did not take another dead-timeout");
		return hand_over(d);
	}
	if (!link_still_attached(d))
		return device_lost(d, &(struct event_detail){
			.text = "another program has disconnected it" });
	device_set_error(d, "kernel did not take the new connection: %s",
			 strerror(-e->error));
	device_log(d, LOG_ERR, "%s", d->last_error);
	retry_after_failure(d, FAILURE_BACKOFF);
	return state_by_links(d);
}

enum device_state link_dead_timeout(struct device *d, const struct event_detail *e)
{
	char timeout[FORMAT_MAX];

	news_tell(d, NEWS_FAILING, "no server for %s (dead-timeout): I/O fails until one is back",
		   format_usec(timeout, d->keys.dead_timeout_usec));
	return STATE_FAILING;
}

enum device_state device_lost(struct device *d, const struct event_detail *e)
{
	news_tell(d, NEWS_GONE, "/dev/nbd%d: %s; no longer supervised", d->index, e->text);
	device_set_error(d, "%s", e->text);
	status_lost(d);
	control_attach_failed(d, CONTROL_ERROR_FAILED);
	control_detach_done(d, 0);
	return STATE_GONE;
}
