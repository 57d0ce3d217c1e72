/* The end of a device: flush, disconnect, forget.
 *
 * Nothing tells a process that may not look into others whether one of them has the device
 * open.  So unless it is forced, the kernel decides: it is asked to disconnect the device at
 * the last close, the device is opened and closed here, and the kernel is asked not to do that
 * any more, which it accepts only if somebody was left.  Nobody can come in between. */
#include <errno.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/errand.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/news.h"
#include "daemon/retry.h"
#include "daemon/transitions.h"
#include "lib/util/clock.h"

/* The kernel tells the server goodbye, and that blocks when the server reads nothing. */
#define GOODBYE_USEC	(500 * USEC_PER_MSEC)
#define CLOSES_MAX	3
#define CLOSE_PAUSE_USEC	(50 * USEC_PER_MSEC)

static int on_goodbye_late(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;

	d->busy_timer = sd_event_source_disable_unref(d->busy_timer);
	for (size_t i = 0; i < d->n_links; i++)
		link_cut(&d->links[i], NULL);
	return 0;
}

/* Nothing else can be done with it: the kernel may still hold it, we let go. */
static enum device_state not_disconnected(struct device *d, int r)
{
	device_log(d, LOG_ERR, "kernel did not disconnect /dev/nbd%d: %s", d->index,
		   strerror(-r));
	device_set_error(d, "kernel did not disconnect: %s", strerror(-r));
	control_attach_failed(d, CONTROL_ERROR_FAILED);
	control_detach_done(d, r);
	return STATE_GONE;
}

static enum device_state gone(struct device *d)
{
	news_tell(d, NEWS_DETACHED, "detached from /dev/nbd%d", d->index);
	control_attach_failed(d, CONTROL_ERROR_FAILED);
	control_detach_done(d, 0);
	return STATE_GONE;
}

static enum device_state not_ours_for_sure(struct device *d, int r);

/* The kernel does it by the index alone, whose device may be another program's by now. */
static enum device_state disconnect(struct device *d)
{
	int r = link_still_attached(d);

	if (r == 0)
		return gone(d);
	if (r < 0)
		return not_ours_for_sure(d, r);
	for (size_t i = 0; i < d->n_links; i++) {
		struct link *l = &d->links[i];

		l->watch = sd_event_source_disable_unref(l->watch);
		if (l->state != LINK_ALIVE)
			link_reset(l);
	}
	retry_stop(d);
	d->settle_timer = sd_event_source_disable_unref(d->settle_timer);
	d->busy_timer = sd_event_source_disable_unref(d->busy_timer);
	sd_event_add_time_relative(d->manager->event, &d->busy_timer, CLOCK_MONOTONIC,
				   GOODBYE_USEC, USEC_PER_MSEC, on_goodbye_late, d);
	r = kernel_disconnect(d);
	if (r < 0)
		return not_disconnected(d, r);
	return STATE_DETACHING;
}

/* What hung may hang on, and has it open. */
static void on_flushed(struct device *d, const struct errand_result *result)
{
	if (result->error < 0)
		device_log(d, LOG_WARNING, "flush before the detach: %s",
			   strerror(-result->error));
	d->doubt = result->error;
	device_event(d, EV_GO_ON, NULL);
}

/* ---- a device that is to be taken from nobody --------------------------------------- */

/* It was found in use, or for R that could not be found out. */
static enum device_state stay(struct device *d, int r)
{
	if (d->detach_forced)
		return disconnect(d);
	d->detach_wanted = d->letting_go = false;
	d->busy_timer = sd_event_source_disable_unref(d->busy_timer);
	control_attach_done(d);
	if (r < 0)
		control_detach_unknown(d, r);
	else
		control_detach_held(d, false);
	return links_resume(d);
}

static enum device_state not_kept(struct device *d, int r)
{
	device_log(d, LOG_ERR, "the kernel still disconnects /dev/nbd%d when its last user closes "
		   "it: %s", d->index, strerror(-r));
	return stay(d, r);
}

/* While it is open the kernel still takes this; once it has let go it does not. */
static enum device_state see(struct device *d)
{
	int r;

	/* A goodbye that blocks would block us, too. */
	if (d->doubt == -ETIMEDOUT)
		sd_event_add_time_relative(d->manager->event, &d->busy_timer, CLOCK_MONOTONIC,
					   GOODBYE_USEC, USEC_PER_MSEC, on_goodbye_late, d);
	r = kernel_last_close(d, false);
	return r < 0 ? not_kept(d, r) : STATE_DETACHING;
}

static enum device_state not_ours_for_sure(struct device *d, int r)
{
	device_set_error(d, "cannot find out whether /dev/nbd%d is still the device that was "
			 "attached: %s; it stays as it is (detach it again)", d->index,
			 strerror(-r));
	device_log(d, LOG_ERR, "%s", d->last_error);
	control_detach_done(d, r);
	d->detach_forced = false;
	d->doubt = 0;
	return d->letting_go ? see(d) : stay(d, 0);
}

/* Nobody else may be told: programs that write without fsync and close the device are not. */
static enum device_state not_flushed(struct device *d)
{
	int r = d->doubt;

	device_set_error(d, "/dev/nbd%d is not detached, for it could not be flushed: %s; data "
			 "that was written to it may be lost (--force detaches it nevertheless)",
			 d->index, strerror(-r));
	control_detach_done(d, r);
	d->doubt = 0;
	return stay(d, 0);
}

static int on_pause_over(sd_event_source *s, uint64_t usec, void *userdata);

/* Udev, or a child of ours that hung, may have it open for a moment. */
static void on_closed(struct device *d, const struct errand_result *result)
{
	d->doubt = result->error ? result->error : d->doubt;
	d->unused = result->unused;
	if (result->error || d->unused || d->detach_forced || ++d->closes == CLOSES_MAX ||
	    !link_still_attached(d) ||
	    sd_event_add_time_relative(d->manager->event, &d->busy_timer, CLOCK_MONOTONIC,
				       CLOSE_PAUSE_USEC, USEC_PER_MSEC, on_pause_over, d) < 0)
		device_event(d, EV_GO_ON, NULL);
}

static int on_pause_over(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;
	int r;

	d->busy_timer = sd_event_source_disable_unref(d->busy_timer);
	r = errand_close(d, on_closed);
	if (r < 0)
		on_closed(d, &(struct errand_result){ .error = r });
	return 0;
}

static enum device_state let_go(struct device *d)
{
	int r;

	if (d->detach_forced)
		return disconnect(d);
	d->letting_go = true;
	d->closes = 0;
	r = kernel_last_close(d, true);
	return r < 0 ? stay(d, r) : STATE_DETACHING;
}

enum device_state detach_go_on(struct device *d, const struct event_detail *e)
{
	if (d->unused)
		return disconnect(d);
	if (d->letting_go)
		return see(d);
	if (d->doubt < 0 && d->doubt != -ETIMEDOUT && link_still_attached(d))
		return not_flushed(d);
	return let_go(d);
}

/* Without a link the flush can only hang: do without it. */
enum device_state detach_link_dead(struct device *d, const struct event_detail *e)
{
	if (e->link) {
		link_cut(e->link, NULL);
		link_reset(e->link);
		d->dead_links++;
	} else {
		d->kernel_dead++;
	}
	if (device_links_alive(d) || !d->errand || d->letting_go)
		return STATE_DETACHING;
	device_log(d, LOG_WARNING, "connection lost before the flush was done");
	d->errand = errand_cancel(d->errand);
	d->doubt = -ENOTCONN;
	return let_go(d);
}

/* What cannot be found out stands in the way like a holder.  An open that waits for a server
 * which is there is in nobody's way: the flush would wait for it, too, and the kernel has the
 * last word. */
static void on_claimed(struct device *d, const struct errand_result *result)
{
	bool waits = result->error == -ETIMEDOUT && device_links_alive(d);

	if (result->error == -EBUSY)
		control_detach_held(d, true);
	else if (result->error < 0 && !waits)
		control_detach_unknown(d, result->error);
	else
		device_event(d, EV_DETACH, NULL);
}

/* What is decided already, or is being found out, answers whoever asks for no more. */
void detach_ask(struct device *d, bool force)
{
	bool attached = d->state != STATE_CONNECTING && d->state != STATE_ATTACHING;
	int r;

	if (!force && (d->detach_wanted || d->claim))
		return;
	d->claim = errand_cancel(d->claim);
	d->detach_forced = force;
	if (force || !attached) {
		device_event(d, EV_DETACH, NULL);
		return;
	}
	r = errand_claim(d, on_claimed);
	if (r < 0)
		on_claimed(d, &(struct errand_result){ .error = r });
}

/* A request that the kernel has under way ends first; its end comes back here. */
enum device_state detach_begin(struct device *d, const struct event_detail *e)
{
	d->detach_wanted = true;
	if (d->call)
		return d->state;
	move_cancel(d, "the device is being detached");
	d->dead_timer = sd_event_source_disable_unref(d->dead_timer);
	retry_stop(d);
	d->errand = errand_cancel(d->errand);
	d->letting_go = d->unused = false;
	d->doubt = 0;
	if (d->detach_forced)
		return disconnect(d);
	if (device_links_alive(d) && errand_flush(d, on_flushed) >= 0)
		return STATE_DETACHING;
	return let_go(d);
}

/* Somebody forces what another has begun: nothing is waited for but the kernel. */
enum device_state detach_hurry(struct device *d, const struct event_detail *e)
{
	if (!d->errand)
		return STATE_DETACHING;
	d->errand = errand_cancel(d->errand);
	return disconnect(d);
}

enum device_state detach_later(struct device *d, const struct event_detail *e)
{
	d->detach_wanted = true;
	return d->state;
}

enum device_state detach_kernel_done(struct device *d, const struct event_detail *e)
{
	switch (e->call) {
	case CALL_LET_GO:
		d->doubt = MIN(errand_close(d, on_closed), d->doubt);
		return d->errand ? STATE_DETACHING : see(d);
	case CALL_KEEP:
		return stay(d, d->doubt);
	default:
		return gone(d);
	}
}

enum device_state detach_kernel_failed(struct device *d, const struct event_detail *e)
{
	if (e->call == CALL_DISCONNECT)
		return not_disconnected(d, e->error);
	if (e->error == -EINVAL)
		return gone(d);
	return e->call == CALL_KEEP ? not_kept(d, e->error) : stay(d, e->error);
}
