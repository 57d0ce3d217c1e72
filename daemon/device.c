#include "daemon/device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/errand.h"
#include "daemon/event.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/naming.h"
#include "daemon/save.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

#define SEVERAL_REQUEUE_USEC	(30 * USEC_PER_SEC)	/* as the kernel has it */

static const char *const state_names[N_STATES] = {
	[STATE_CONNECTING] = "connecting",
	[STATE_ATTACHING] = "attaching",
	[STATE_CONNECTED] = "connected",
	[STATE_DEGRADED] = "degraded",
	[STATE_RECONNECTING] = "reconnecting",
	[STATE_REFUSED] = "refused",
	[STATE_FAILING] = "failing",
	[STATE_MOVING] = "moving",
	[STATE_DETACHING] = "detaching",
	[STATE_GONE] = "gone",
};

const char *device_state_name(enum device_state state)
{
	return state_names[state];
}

bool device_is_out(const struct device *d)
{
	return d->state == STATE_RECONNECTING || d->state == STATE_REFUSED ||
	       d->state == STATE_FAILING;
}

bool device_is_away(const struct device *d)
{
	return device_is_out(d) || d->state == STATE_MOVING;
}

size_t device_links_alive(const struct device *d)
{
	size_t n = 0;

	for (size_t i = 0; i < d->n_links; i++)
		n += d->links[i].state == LINK_ALIVE;
	return n;
}

struct link *device_link_in(struct device *d, enum link_state state)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == state)
			return &d->links[i];
	return NULL;
}

void device_log(const struct device *d, int priority, const char *format, ...)
{
	char text[LOG_LINE_MAX - CONF_NAME_MAX - 64];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	log_line(priority, "%s: %s", d->name, text);
}

void device_set_error(struct device *d, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(d->last_error, sizeof(d->last_error), format, ap);
	va_end(ap);
}

uint64_t device_usable_size(const struct device *d, uint64_t exported)
{
	uint64_t most = d->keys.size ? MIN(d->keys.size, exported) : exported;

	return most - most % d->block_size;
}

/* Requests in flight on a link that dies are requeued by the block layer's timer alone
 * (kernel-nbd: nbd_xmit_timeout).  With one connection and TIMEOUT=0 it only looks and
 * re-arms, so it can be short.  With several it takes every late request for the sign of a
 * dead link and kills it, healthy or not; the request keeps its interval when it is sent
 * again (blk_add_timer), so one that the server answers later than that would never end. */
static uint64_t requeue_interval(const struct device *d)
{
	bool given = device_keys_given(&d->keys, "requeue-interval");

	if (d->n_links > 1 && !given)
		return MAX(d->keys.requeue_interval_usec, SEVERAL_REQUEUE_USEC);
	return d->keys.requeue_interval_usec;
}

void device_apply_keys(struct device *d)
{
	d->backoff.first_usec = d->keys.reconnect_delay_usec;
	d->backoff.max_usec = d->keys.reconnect_delay_max_usec;
	d->requeue_usec = requeue_interval(d);
}

int device_new(struct manager *m, const char *name, int index, bool automatic,
	       const struct device_keys *keys, struct device **ret)
{
	struct device *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	device_keys_init(&d->keys);
	d->manager = m;
	d->index = index;
	d->automatic = automatic;
	d->n_links = 1;
	d->life_fd = -1;
	d->io_before = UINT64_MAX;
	for (size_t i = 0; i < CONF_CONNECTIONS_MAX; i++)
		d->links[i] = (struct link){ .device = d, .fd = -1 };
	r = device_keys_copy(&d->keys, keys);
	if (r < 0) {
		device_free(d);
		return r;
	}
	device_give_name(d, name);
	device_apply_keys(d);
	*ret = d;
	return 0;
}

void device_free(struct device *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < CONF_CONNECTIONS_MAX; i++)
		link_reset(&d->links[i]);
	resolver_cancel(d->resolver);
	errand_cancel(d->errand);
	errand_cancel(d->tuning);
	errand_cancel(d->claim);
	move_free(d);
	kernel_call_forget(d->call);
	sd_event_source_disable_unref(d->retry_timer);
	sd_event_source_disable_unref(d->settle_timer);
	sd_event_source_disable_unref(d->doubt_timer);
	sd_event_source_disable_unref(d->dead_timer);
	sd_event_source_disable_unref(d->busy_timer);
	sd_event_source_disable_unref(d->grow_timer);
	tls_secrets_free(d->secrets);
	sd_event_source_disable_unref(d->tls_timer);
	save_close(d);
	free(d->warrant);
	fd_close(d->life_fd);
	target_deinit(&d->target);
	device_keys_deinit(&d->keys);
	free(d);
}
