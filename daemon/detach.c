/* The end of a device: flush, disconnect, forget. */
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
#include "daemon/transitions.h"
#include "lib/util/clock.h"

/* The kernel tells the server goodbye, and that blocks when the server reads nothing. */
#define GOODBYE_USEC	(500 * USEC_PER_MSEC)

static int on_goodbye_late(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;

	d->busy_timer = sd_event_source_disable_unref(d->busy_timer);
	for (size_t i = 0; i < d->n_links; i++)
		link_cut(&d->links[i], NULL);
	return 0;
}

static enum device_state disconnect(struct device *d)
{
	int r;

	for (size_t i = 0; i < d->n_links; i++) {
		struct link *l = &d->links[i];

		l->watch = sd_event_source_disable_unref(l->watch);
		if (l->state != LINK_ALIVE)
			link_reset(l);
	}
	d->retry_timer = sd_event_source_disable_unref(d->retry_timer);
	d->settle_timer = sd_event_source_disable_unref(d->settle_timer);
	d->busy_timer = sd_event_source_disable_unref(d->busy_timer);
	sd_event_add_time_relative(d->manager->event, &d->busy_timer, CLOCK_MONOTONIC,
				   GOODBYE_USEC, USEC_PER_MSEC, on_goodbye_late, d);
	r = kernel_disconnect(d);
	if (r < 0)
		return detach_kernel_failed(d, &(struct event_detail){ .error = r });
	return STATE_DETACHING;
}

static void on_flushed(struct device *d, const struct errand_result *result)
{
	if (result->error < 0)
		device_log(d, LOG_WARNING, "flush before the detach: %s",
			   strerror(-result->error));
	device_event(d, EV_START, NULL);
}

enum device_state detach_flushed(struct device *d, const struct event_detail *e)
{
	return disconnect(d);
}

/* Without a link the flush can only hang: do without it. */
enum device_state detach_link_dead(struct device *d, const struct event_detail *e)
{
	if (e->link)
		link_reset(e->link);
	if (device_links_alive(d) || !d->errand)
		return STATE_DETACHING;
	device_log(d, LOG_WARNING, "connection lost before the flush was done");
	d->errand = errand_cancel(d->errand);
	return disconnect(d);
}

/* A request that the kernel has under way ends first; its end comes back here. */
enum device_state detach_begin(struct device *d, const struct event_detail *e)
{
	d->detach_wanted = true;
	if (d->call)
		return d->state;
	move_cancel(d, "the device is being detached");
	d->dead_timer = sd_event_source_disable_unref(d->dead_timer);
	d->errand = errand_cancel(d->errand);
	if (device_links_alive(d) && !d->detach_forced &&
	    errand_flush(d, on_flushed) >= 0)
		return STATE_DETACHING;
	return disconnect(d);
}

enum device_state detach_later(struct device *d, const struct event_detail *e)
{
	d->detach_wanted = true;
	return d->state;
}

enum device_state detach_kernel_done(struct device *d, const struct event_detail *e)
{
	news_tell(d, NEWS_DETACHED, "detached from /dev/nbd%d", d->index);
	control_attach_failed(d, CONTROL_ERROR_FAILED);
	control_detach_done(d, 0);
	return STATE_GONE;
}

/* Nothing else can be done with it: the kernel may still hold it, we let go. */
enum device_state detach_kernel_failed(struct device *d, const struct event_detail *e)
{
	device_log(d, LOG_ERR, "kernel did not disconnect /dev/nbd%d: %s", d->index,
		   strerror(-e->error));
	device_set_error(d, "kernel did not disconnect: %s", strerror(-e->error));
	control_attach_failed(d, CONTROL_ERROR_FAILED);
	control_detach_done(d, e->error);
	return STATE_GONE;
}
