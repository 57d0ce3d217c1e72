/* From the first connection to the kernel's device. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/errand.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/naming.h"
#include "daemon/news.h"
#include "daemon/one_server.h"
#include "daemon/report.h"
#include "daemon/retry.h"
#include "daemon/transitions.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"
#include "netlink/nbdk.h"

#define AUTO_CONNECTIONS	4
#define KERNEL_BLOCK_MIN	512u
#define KERNEL_BLOCK_MAX	4096u

#define BUSY_PAUSE_USEC		(50 * USEC_PER_MSEC)
#define BUSY_TRIES_FREE		10	/* then another free index is taken */
#define BUSY_TRIES_FIXED	100

/* Give up when a person waits for the answer; a device of the files goes on trying. */
static enum device_state attach_give_up(struct device *d, const char *error,
					enum connect_failure failure)
{
	for (size_t i = 0; i < d->n_links; i++) {
		link_reset(&d->links[i]);
		d->links[i].tried = false;
	}
	d->n_links = 1;
	if (strcmp(d->logged, d->last_error) != 0)
		device_log(d, LOG_WARNING, "not attached: %s", d->last_error);
	memcpy(d->logged, d->last_error, sizeof(d->logged));
	control_attach_failed(d, error);
	if (!d->automatic)
		return STATE_GONE;
	retry_after_failure(d, failure);
	return STATE_CONNECTING;
}

/* Is the wanted device connected, by whomever?  Then no server need be asked. */
static bool taken_by_other(const struct device *d, char reason[static DEVICE_REASON_MAX])
{
	char backend[NBDK_IDENTIFIER_MAX + 1];
	struct nbdk_info info;

	if (nbdk_sysfs_connection((unsigned)d->index, &info) < 0 || !info.connected)
		return false;
	escape_text(backend, sizeof(backend), info.backend, strlen(info.backend));
	snprintf(reason, DEVICE_REASON_MAX, "/dev/nbd%d is connected already (by process "
		 "%d, identifier '%s')", d->index, info.pid, backend);
	return true;
}

/* Is the device attached already, by a daemon that left no state of it?  A second one on the
 * same export could write what the first one does not know of. */
static bool left_over(struct device *d)
{
	char text[REPORT_MAX];
	bool found = report_left_over(d, text);

	if (found)
		device_set_error(d, "%s", text);
	return found;
}

enum device_state attach_start(struct device *d, const struct event_detail *e)
{
	int r = 0;

	if (left_over(d))
		return attach_give_up(d, CONTROL_ERROR_BUSY, FAILURE_PERMANENT);
	if (d->index_fixed && taken_by_other(d, d->last_error))
		return attach_give_up(d, CONTROL_ERROR_BUSY, FAILURE_PERMANENT);
	if (d->target.n_servers == 0 || d->resolve_again)
		r = retry_resolve(d);
	for (size_t i = 0; i < d->n_links && r >= 0 && d->target.n_servers; i++)
		if (d->links[i].state == LINK_IDLE && !d->links[i].tried)
			r = link_connect(&d->links[i]);
	if (r < 0 && r != -EAGAIN) {
		device_set_error(d, "cannot start a process: %s", child_strerror(r));
		return attach_give_up(d, CONTROL_ERROR_FAILED, FAILURE_BACKOFF);
	}
	return STATE_CONNECTING;
}

/* How many connections to make, now that the first one told what the server allows. */
static size_t wanted_links(struct device *d)
{
	bool several = d->info.flags & FLAG_CAN_MULTI_CONN;
	size_t wanted = d->keys.connections ? d->keys.connections : AUTO_CONNECTIONS;

	if (!several && d->keys.connections > 1) {
		snprintf(d->warning, sizeof(d->warning),
			 "the server does not allow several connections (no "
			 "NBD_FLAG_CAN_MULTI_CONN): using 1 instead of %u",
			 d->keys.connections);
		device_log(d, LOG_WARNING, "%s", d->warning);
	}
	return several ? wanted : 1;
}

/* Fix what the kernel will be told for the device's whole life. */
static int settle_geometry(struct device *d, const struct export_info *info)
{
	uint32_t block = MAX(info->block_minimum, KERNEL_BLOCK_MIN);

	d->info = *info;
	if (d->keys.read_only)
		d->info.flags |= FLAG_READ_ONLY;
	if (block > KERNEL_BLOCK_MAX || (block & (block - 1))) {
		device_set_error(d, "server asks for blocks of %u bytes, the kernel takes a "
				 "power of two from %u to %u", info->block_minimum,
				 KERNEL_BLOCK_MIN, KERNEL_BLOCK_MAX);
		return -EINVAL;
	}
	if (d->keys.block_size && d->keys.block_size < block) {
		device_set_error(d, "block-size is %u, but the server takes no requests of "
				 "less than %u bytes", (unsigned)d->keys.block_size, block);
		return -EINVAL;
	}
	d->block_size = d->keys.block_size ? (uint32_t)d->keys.block_size : block;
	d->size = device_usable_size(d, info->size);
	if (d->keys.size && d->size != d->keys.size) {
		device_set_error(d, "size is %llu bytes, expected are whole blocks of %u and at "
				 "most the export's %llu bytes",
				 (unsigned long long)d->keys.size, d->block_size,
				 (unsigned long long)info->size);
		return -EINVAL;
	}
	if (d->size == 0) {
		device_set_error(d, "export of %llu bytes is less than one block of %u",
				 (unsigned long long)info->size, d->block_size);
		return -EINVAL;
	}
	return 0;
}

/* Every connection of one device must lead to the same export. */
static bool same_export(const struct export_info *a, const struct export_info *b)
{
	return a->size == b->size && a->flags == b->flags &&
	       a->block_minimum == b->block_minimum;
}

/* All connections were tried: keep those that came, in the first places. */
static enum device_state attach_kernel(struct device *d)
{
	size_t n = 0;
	int r;

	for (size_t i = 0; i < d->n_links; i++) {
		if (d->links[i].state != LINK_READY)
			continue;
		if (i != n) {
			struct device *self = d->links[n].device;

			d->links[n] = d->links[i];
			d->links[n].device = self;
			d->links[i] = (struct link){ .device = self, .fd = -1 };
		}
		n++;
	}
	d->n_links = n;
	retry_stop(d);
	device_apply_keys(d);
	r = kernel_connect(d);
	if (r < 0) {
		device_set_error(d, "%s", strerror(-r));
		return attach_give_up(d, CONTROL_ERROR_FAILED, FAILURE_BACKOFF);
	}
	return STATE_ATTACHING;
}

static enum device_state attach_progress(struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (!d->links[i].tried)
			return attach_start(d, NULL);
	return attach_kernel(d);
}

enum device_state attach_socket(struct device *d, const struct event_detail *e)
{
	struct link *l = e->link;

	l->tried = true;
	if (l == &d->links[0]) {
		if (settle_geometry(d, &l->info) < 0)
			return attach_give_up(d, CONTROL_ERROR_FAILED, FAILURE_PERMANENT);
		d->n_links = wanted_links(d);
	} else if (!same_export(&l->info, &d->links[0].info)) {
		device_log(d, LOG_WARNING, "a further connection leads to another export "
			   "(size %llu instead of %llu): not used",
			   (unsigned long long)l->info.size,
			   (unsigned long long)d->links[0].info.size);
		link_reset(l);
	}
	return attach_progress(d);
}

enum device_state attach_failed(struct device *d, const struct event_detail *e)
{
	if (e->link && e->link != &d->links[0]) {
		e->link->tried = true;
		device_log(d, LOG_WARNING, "a further connection failed: %s", e->text);
		return attach_progress(d);
	}
	device_set_error(d, "%s", e->text);
	if (e->link && !d->automatic && one_server_next(d)) {	/* others: retry_after_failure */
		device_log(d, LOG_WARNING, "%s; its next server is tried", d->last_error);
		retry_now(d);
		return STATE_CONNECTING;
	}
	return attach_give_up(d, CONTROL_ERROR_CONNECT_FAILED, e->failure);
}

static void on_settings(struct device *d, const struct errand_result *result)
{
	errand_settings_made(d, result);
	control_attach_done(d);
}

enum device_state attach_kernel_done(struct device *d, const struct event_detail *e)
{
	char size[FORMAT_MAX];
	int r;

	for (size_t i = 0; i < d->n_links; i++)
		link_alive(&d->links[i]);
	retry_reset(d);
	news_tell(d, NEWS_ATTACHED, "attached as /dev/nbd%d: %s, %zu connection%s to %s",
		  d->index, format_size(size, d->size), d->n_links,
		   d->n_links == 1 ? "" : "s", d->links[0].peer);
	if (d->detach_wanted) {
		d->detach_forced = true;	/* nobody was told of it; udev may look at it */
		return detach_begin(d, NULL);
	}
	(void)link_still_attached(d);		/* whatever it opens is open from now on */
	r = errand_settings(d, &d->errand, on_settings);
	if (r < 0)
		on_settings(d, &(struct errand_result){ .error = r });
	return STATE_CONNECTED;
}

static int on_busy_over(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;

	d->busy_timer = sd_event_source_disable_unref(d->busy_timer);
	device_event(d, EV_GO_ON, NULL);
	return 0;
}

/* The kernel says EBUSY also when udev merely has the device open for a moment. */
static bool try_again(struct device *d)
{
	struct nbdk_info info;
	bool taken = nbdk_sysfs_connection((unsigned)d->index, &info) == 0 && info.connected;

	if (!d->index_fixed && (taken || d->busy_tries >= BUSY_TRIES_FREE)) {
		device_renumber(d, manager_free_index(d->manager, d->index));
		d->busy_tries = 0;
	} else if (taken || d->busy_tries++ >= BUSY_TRIES_FIXED) {
		return false;
	}
	return sd_event_add_time_relative(d->manager->event, &d->busy_timer, CLOCK_MONOTONIC,
					  BUSY_PAUSE_USEC, USEC_PER_MSEC, on_busy_over,
					  d) >= 0;
}

/* The pause after EBUSY is over. */
enum device_state attach_again(struct device *d, const struct event_detail *e)
{
	int r;

	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_HANDED)
			d->links[i].state = LINK_READY;
	r = kernel_connect(d);
	return r < 0 ? attach_kernel_failed(d, &(struct event_detail){ .error = r })
		     : STATE_ATTACHING;
}

enum device_state attach_kernel_failed(struct device *d, const struct event_detail *e)
{
	struct nbdk_connect c = { .index = d->index, .size = d->size,
				  .block_size = d->block_size, .n_sockets = d->n_links };

	if (!d->detach_wanted && e->error == -EBUSY && try_again(d))
		return STATE_ATTACHING;
	links_take_back(d);		/* or the kernel may have them, its answer being lost */
	if (d->detach_wanted)
		return attach_abandon(d, e);
	device_set_error(d, "/dev/nbd%d: %s", d->index, nbdk_connect_strerror(e->error, &c));
	return attach_give_up(d, e->error == -EBUSY ? CONTROL_ERROR_BUSY
						    : CONTROL_ERROR_FAILED,
			      FAILURE_PERMANENT);
}

enum device_state attach_abandon(struct device *d, const struct event_detail *e)
{
	device_set_error(d, "detached before it was attached");
	control_attach_failed(d, CONTROL_ERROR_FAILED);
	control_detach_done(d, 0);
	return STATE_GONE;
}
