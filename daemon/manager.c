#include "daemon/manager.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/connector.h"
#include "daemon/control.h"
#include "daemon/disposal.h"
#include "daemon/event.h"
#include "daemon/fdstore.h"
#include "daemon/fetch.h"
#include "daemon/inherit.h"
#include "daemon/link.h"
#include "daemon/naming.h"
#include "daemon/news.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/proto/varlink.h"
#include "daemon/relay.h"
#include "daemon/reload.h"
#include "daemon/resume.h"
#include "daemon/retry.h"
#include "daemon/status.h"
#include "daemon/store.h"
#include "daemon/watchdog.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

/* ---- the registry ------------------------------------------------------------------ */

struct device *manager_find_index(struct manager *m, unsigned index)
{
	struct device *waits = NULL;

	for (size_t i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];

		if (d->index != (int)index)
			continue;
		if (d->state != STATE_CONNECTING)
			return d;
		waits = waits ?: d;
	}
	return waits;
}

struct device *manager_find_named(struct manager *m, const char *name)
{
	for (size_t i = 0; i < m->n_devices; i++)
		if (strcmp(m->devices[i]->name, name) == 0)
			return m->devices[i];
	return NULL;
}

struct device *manager_find(struct manager *m, const char *name_or_device)
{
	struct device *d = manager_find_named(m, name_or_device);
	unsigned index;

	if (d || conf_parse_device(name_or_device, &index) < 0)
		return d;
	return manager_find_index(m, index);
}

int manager_add(struct manager *m, struct device *d)
{
	if (m->n_devices == MANAGER_DEVICES_MAX)
		return -ENOSPC;
	m->devices[m->n_devices++] = d;
	for (size_t i = 0; i + 1 < m->n_devices; i++)
		if (m->devices[i]->index == d->index && device_index_is_guess(m->devices[i]))
			device_renumber(m->devices[i], manager_free_index(m, d->index));
	return 0;
}

static void remember_end(struct manager *m, const struct device *d)
{
	if (d->index < 0)
		return;
	for (size_t i = 0; i < MANAGER_DETACHED_MAX; i++)
		if (m->detached[i] == d->index + 1)
			m->detached[i] = 0;
	if (d->detach_wanted)
		m->detached[m->next_detached++ % MANAGER_DETACHED_MAX] = d->index + 1;
}

bool manager_was_detached(const struct manager *m, const char *device)
{
	unsigned index;

	if (conf_parse_device(device, &index) < 0)
		return false;
	for (size_t i = 0; i < MANAGER_DETACHED_MAX; i++)
		if (m->detached[i] == (int)index + 1)
			return true;
	return false;
}

void manager_remove(struct manager *m, struct device *d)
{
	remember_end(m, d);
	for (size_t i = 0; i < m->n_devices; i++)
		if (m->devices[i] == d) {
			memmove(&m->devices[i], &m->devices[i + 1],
				(m->n_devices - i - 1) * sizeof(*m->devices));
			m->n_devices--;
			m->turn -= i < m->turn;
			return;
		}
}

/* An index that the files give to a device is kept for it. */
static bool index_configured(const struct manager *m, int index)
{
	for (size_t i = 0; m->conf && i < m->conf->n_devices; i++)
		if (m->conf->devices[i].index == index)
			return true;
	return false;
}

/* Does anybody have this number, or the name that goes with it? */
static bool index_taken(struct manager *m, int index)
{
	char name[DEVICE_NODE_MAX];
	struct nbdk_info info;

	device_node_name(index, name);
	return manager_find(m, name) || index_configured(m, index) ||
	       (nbdk_sysfs_connection((unsigned)index, &info) == 0 && info.connected);
}

int manager_free_index(struct manager *m, int after)
{
	int index = after + 1;

	while (index_taken(m, index))
		index++;
	return index;
}

bool manager_any_out(const struct manager *m)
{
	for (size_t i = 0; i < m->n_devices; i++)
		if (device_is_away(m->devices[i]))
			return true;
	return false;
}

unsigned manager_waiting(const struct manager *m, const struct device *d)
{
	const struct server *server = target_server(&d->target);
	unsigned n = 0;

	for (size_t i = 0; i < m->n_devices && d->target.n_servers; i++) {
		const struct device *other = m->devices[i];

		n += other != d && other->retry_at_usec && other->target.n_servers &&
		     server_same(target_server(&other->target), server);
	}
	return n;
}

/* ---- turns, and haste -------------------------------------------------------------- */

static int on_kick(sd_event_source *s, void *userdata)
{
	retry_queued(userdata);
	return 0;
}

void manager_kick(struct manager *m)
{
	if (m->kick)
		sd_event_source_set_enabled(m->kick, SD_EVENT_ONESHOT);
}

void manager_hurry(struct manager *m, const char *why)
{
	bool any = false;

	for (size_t i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];

		if (!device_is_out(d) && d->state != STATE_DEGRADED &&
		    d->state != STATE_CONNECTING)
			continue;
		any = true;
		retry_hurry(d);
	}
	if (any)
		log_debug("trying again at once: %s", why);
}

void manager_server_back(struct manager *m, const char *host)
{
	for (size_t i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];

		if (d->retry_at_usec && d->target.n_servers && !d->refusal[0] &&
		    strcmp(target_server(&d->target)->host, host) == 0)
			retry_now(d);
	}
}

/* ---- the kernel's news ------------------------------------------------------------- */

static void on_link_dead(unsigned index, void *userdata)
{
	struct manager *m = userdata;
	struct device *d = manager_find_index(m, index);

	if (d)
		link_find_dead(d, false);
	d = manager_find_index(m, index);
	if (d)
		device_event(d, EV_LINK_DEAD, NULL);
}

/* Lost events are no harm where we have duplicates of the sockets, which tell of every death
 * as well. */
static void find_all_dead(struct manager *m)
{
	unsigned indexes[MANAGER_DEVICES_MAX];
	size_t n = m->n_devices;

	for (size_t i = 0; i < n; i++)
		indexes[i] = (unsigned)m->devices[i]->index;
	for (size_t i = 0; i < n; i++) {
		struct device *d = manager_find_index(m, indexes[i]);

		if (d)
			link_find_dead(d, false);
	}
}

static int on_links(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct manager *m = userdata;
	int r = nbdk_events_read(m->links, on_link_dead, m);

	if (r < 0)
		log_debug("events of the nbd driver: %s", strerror(-r));
	if (r == -ENOBUFS)
		find_all_dead(m);
	return 0;
}

static void on_net_change(const char *what, void *userdata)
{
	manager_hurry(userdata, what);
}

static int on_net(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct manager *m = userdata;
	int r = nbdk_net_read(m->net, on_net_change, m);

	if (r == -ENOBUFS)
		manager_hurry(m, "network events were lost");
	return 0;
}

static int watch_fd(struct manager *m, int fd, sd_event_io_handler_t handler)
{
	sd_event_source *source;
	int r = sd_event_add_io(m->event, &source, fd, EPOLLIN, handler, m);

	if (r < 0)
		return r;
	sd_event_source_set_floating(source, true);
	sd_event_source_unref(source);
	return 0;
}

/* ---- beginning and end ------------------------------------------------------------- */

static int fail(int r, const char *what)
{
	log_error("%s: %s", what, strerror(-r));
	return r;
}

static int open_kernel(struct manager *m, int genl)
{
	int r = kworker_new(m->event, &nbdk_kernel_ops, genl, &m->worker);

	if (r == -ENOENT) {
		log_error("this kernel has no nbd driver here: load it ('modprobe nbd'), and "
			  "run in the initial network namespace");
		return r;
	}
	if (r < 0)
		return fail(r, "cannot reach the nbd driver");
	r = nbdk_events_open(&m->links);
	if (r >= 0)
		r = watch_fd(m, nbdk_events_fd(m->links), on_links);
	if (r < 0)
		return fail(r, "cannot receive events of the nbd driver");
	r = nbdk_net_open(&m->net);
	if (r >= 0)
		r = watch_fd(m, nbdk_net_fd(m->net), on_net);
	return r < 0 ? fail(r, "cannot receive network events") : 0;
}

static int prepare(struct manager *m)
{
	int r = sandbox_new(m->options.runtime_dir, &m->sandbox);

	if (r < 0)
		return r;
	m->relay_marks = relay_marks_open(m->options.runtime_dir);
	if (m->relay_marks < 0)
		return fail(m->relay_marks, "cannot open the file of relays");
	r = connectors_new(m->event, m->options.spawner, m->sandbox, &m->connectors);
	if (r < 0)
		return fail(r, "cannot set up the event loop");
	r = state_boot_id(m->boot_id);
	if (r < 0)
		return fail(r, "cannot tell this boot from others");
	r = nbdk_diag_open(&m->diag);
	if (r < 0)
		return fail(r, "cannot ask about sockets");
	r = sd_event_add_defer(m->event, &m->kick, on_kick, m);
	if (r >= 0)
		r = sd_event_source_set_enabled(m->kick, SD_EVENT_OFF);
	return r < 0 ? fail(r, "cannot set up the event loop") : 0;
}

int manager_new(const struct manager_options *options, sd_event *event, struct manager **ret)
{
	struct manager *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->options = *options;
	m->event = event;
	m->relay_marks = -1;
	r = prepare(m);
	if (r < 0) {
		manager_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

int manager_open(struct manager *m, struct inherited *inherited)
{
	int r;

	/* Not before a predecessor has ended, when there is one. */
	r = inherited->handed_over ? 0 : notify_open(&m->notify);
	if (r < 0)
		log_warning("cannot tell systemd anything: %s", strerror(-r));
	if (!inherited->handed_over)
		watchdog_start(m);
	r = open_kernel(m, STEAL_FD(inherited->genl));
	if (r >= 0)
		fdstore_genl(m);
	if (r >= 0 && resume_watch(m) < 0)
		log_warning("cannot tell when the machine was suspended");
	return r < 0 ? r : control_open(m, STEAL_FD(inherited->listen));
}

void manager_free(struct manager *m)
{
	if (!m)
		return;
	m->leaving = true;
	varlink_server_free(m->server);
	disposal_free(m->disposal);
	while (m->n_devices)
		device_free(m->devices[--m->n_devices]);
	kworker_free(m->worker);
	nbdk_events_close(m->links);
	nbdk_net_close(m->net);
	nbdk_diag_close(m->diag);
	store_free(m->store);
	notify_close(m->notify);
	sd_event_source_disable_unref(m->watchdog);
	sd_event_source_disable_unref(m->clock);
	sd_event_source_disable_unref(m->save_timer);
	sd_event_source_disable_unref(m->kick);
	sd_event_source_disable_unref(m->status_timer);
	connectors_free(m->connectors);
	sandbox_free(m->sandbox);
	fd_close(m->relay_marks);
	conf_fetch_free(m);
	sd_event_source_disable_unref(m->load_timer);
	reload_free(m->reload);
	free(m->reports);
	free(m->watchers);
	news_free(m);
	conf_free(m->conf);
	free(m);
}

void manager_set_conf(struct manager *m, struct conf *fresh)
{
	conf_free(m->conf);
	m->conf = fresh;
}
