#include "daemon/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/move.h"
#include "daemon/notify.h"
#include "daemon/outage.h"
#include "daemon/programs.h"
#include "daemon/spawner.h"
#include "daemon/proto/varlink.h"
#include "daemon/tls_status.h"
#include "daemon/report.h"
#include "daemon/save.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "netlink/nbdk.h"

#define CHANGE_PAUSE_USEC (100 * USEC_PER_MSEC)
#define NBD_PORT	10809		/* registered by IANA */

static void add(struct json_object *o, const char *name, struct json_object *value)
{
	json_object_object_add(o, name, value);
}

static void add_int(struct json_object *o, const char *name, uint64_t value)
{
	add(o, name, json_object_new_int64((int64_t)MIN(value, (uint64_t)INT64_MAX)));
}

static void add_string(struct json_object *o, const char *name, const char *value)
{
	add(o, name, json_object_new_string(value ? value : ""));
}

/* Names of the transmission flags (NBD protocol, transmission flags). */
static struct json_object *flag_names(uint16_t flags)
{
	static const char *const names[16] = {
		[1] = "read-only", [2] = "flush", [3] = "fua", [4] = "rotational",
		[5] = "trim", [6] = "write-zeroes", [7] = "df", [8] = "multi-conn",
		[9] = "resize", [10] = "cache", [11] = "fast-zero",
		[12] = "block-status-payload",
	};
	struct json_object *list = json_object_new_array();

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i] && flags & (1u << i))
			json_object_array_add(list, json_object_new_string(names[i]));
	return list;
}

static const char *link_state_name(const struct link *l)
{
	static const char *const names[] = {
		[LINK_IDLE] = "dead", [LINK_CONNECTING] = "connecting",
		[LINK_READY] = "negotiated", [LINK_HANDED] = "negotiated",
		[LINK_ALIVE] = "connected",
	};

	return names[l->state];
}

static struct json_object *link_status(const struct link *l)
{
	struct json_object *o = json_object_new_object();
	struct link_network network = {};

	if (!link_network(l, &network))
		network = (struct link_network){};
	add_string(o, "state", link_state_name(l));
	add_string(o, "peer", l->peer);
	add_int(o, "rtt_usec", network.rtt_usec);
	add_int(o, "retransmits", network.retransmits);
	add_int(o, "since", l->since_real_usec);
	add(o, "relay", l->relay.pid ? json_object_new_int(l->relay.pid) : NULL);
	return o;
}

static struct json_object *outage_status(const struct device *d)
{
	const struct outages *o = &d->outages;
	struct json_object *all = json_object_new_object(), *last = NULL;

	if (o->count) {
		last = json_object_new_object();
		add_int(last, "start", o->last_start_real_usec);
		add_int(last, "duration_usec",
			o->began_usec ? now_usec() - o->began_usec : o->last_usec);
		add_string(last, "reason", o->reason);
	}
	add_int(all, "count", o->count);
	add_int(all, "total_usec", outage_total(d));
	add(all, "last", last);
	return all;
}

static struct json_object *retry_status(const struct device *d)
{
	struct json_object *o = json_object_new_object();

	add_int(o, "attempts", d->attempts);
	add_int(o, "next_usec", d->retry_at_usec ? usec_sub(d->retry_at_usec, now_usec()) : 0);
	add_string(o, "last_error", d->last_error);
	return o;
}

static struct json_object *io_status(const struct device *d)
{
	struct json_object *o = json_object_new_object();
	struct nbdk_info info = {};

	if (d->index < 0 || nbdk_sysfs_read((unsigned)d->index, &info) < 0)
		info = (struct nbdk_info){};
	add_int(o, "reads", info.reads);
	add_int(o, "writes", info.writes);
	add_int(o, "bytes", info.read_bytes + info.write_bytes);
	add_int(o, "in_flight", info.in_flight);
	return o;
}

static struct json_object *warnings(const struct device *d)
{
	struct json_object *list = json_object_new_array();
	uint64_t busy = kworker_busy_since(d->manager->worker);
	const char *program = programs_warning(d);
	const char *spawner = spawner_warning(d->manager->options.spawner);
	char text[128];

	if (d->warning[0])
		json_object_array_add(list, json_object_new_string(d->warning));
	if (program)
		json_object_array_add(list, json_object_new_string(program));
	if (spawner)
		json_object_array_add(list, json_object_new_string(spawner));
	tls_status_warnings(d, list);
	if (d->save_error < 0) {
		snprintf(text, sizeof(text), "its state cannot be saved (%s): the next nbdd "
			 "would not know it", strerror(-d->save_error));
		json_object_array_add(list, json_object_new_string(text));
	}
	if (d->call && busy && now_usec() - busy > USEC_PER_SEC) {
		snprintf(text, sizeof(text), "a call into the kernel has not come back for "
			 "%llu s", (unsigned long long)((now_usec() - busy) / USEC_PER_SEC));
		json_object_array_add(list, json_object_new_string(text));
	}
	return list;
}

/* How its server wants to be spoken to, for `nbdctl map`: names of files, no secrets. */
static struct json_object *tls_keys(const struct device *d)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < n_conf_keys; i++) {
		_cleanup_free_ char *value = NULL;
		const char *name = conf_keys[i].name;

		if (strncmp(name, "tls", 3) == 0 && d->keys.set & UINT64_C(1) << i &&
		    device_keys_get(&d->keys, name, &value) == 0 && value)
			add_string(o, name, value);
	}
	return o;
}

static const char *current_peer(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE)
			return d->links[i].peer;
	return "";
}

/* What the person wrote: the URI, or the first address and export in that form, with the
 * port if that is not NBD's own. */
const char *status_uri(const struct device_keys *k, char buf[static STATUS_URI_MAX])
{
	const char *export_name = k->export_name ? k->export_name : "";
	struct conf_address a = { .is_socket = false };
	char port[16] = "";
	bool is_v6;
	unsigned n;

	if (k->uri)
		return k->uri;
	if (k->n_addresses && conf_parse_address(k->addresses[0], &a) == 0 && a.is_socket) {
		snprintf(buf, STATUS_URI_MAX, "nbd+unix:///%s?socket=%s", export_name, a.host);
		return buf;
	}
	is_v6 = strchr(a.host, ':');
	n = a.port ? a.port : k->port;
	if (n != NBD_PORT)
		snprintf(port, sizeof(port), ":%u", n);
	snprintf(buf, STATUS_URI_MAX, is_v6 ? "nbd://[%s]%s/%s" : "nbd://%s%s/%s", a.host,
		 port, export_name);
	return buf;
}

/* Where it is going: while it moves the keys of the other server are the move's. */
static struct json_object *move_status(const struct device *d)
{
	char text[STATUS_URI_MAX];
	struct json_object *o;

	if (!d->move)
		return NULL;
	o = json_object_new_object();
	add_string(o, "uri", status_uri(d->move->phase < MOVE_CHECK ? &d->move->keys
								     : &d->keys, text));
	add_string(o, "phase", move_phase_name(d));
	return o;
}

struct json_object *status_device(const struct device *d)
{
	struct json_object *o = json_object_new_object(), *links = json_object_new_array();
	bool attached = d->state != STATE_CONNECTING && d->state != STATE_ATTACHING;
	char path[32] = "", uri[STATUS_URI_MAX];

	if (attached)
		snprintf(path, sizeof(path), "/dev/nbd%d", d->index);
	for (size_t i = 0; i < d->n_links; i++)
		json_object_array_add(links, link_status(&d->links[i]));
	add_string(o, "name", d->name);
	add_string(o, "device", path);
	add(o, "index", json_object_new_int(attached ? d->index : -1));
	add_string(o, "state", device_state_name(d->state));
	add_string(o, "uri", status_uri(&d->keys, uri));
	add(o, "keys", tls_keys(d));
	add_string(o, "peer", current_peer(d));
	add_int(o, "size", d->size);
	add_int(o, "block_size", d->block_size);
	add(o, "read_only", json_object_new_boolean(d->info.flags & FLAG_READ_ONLY));
	add(o, "flags", flag_names(d->info.flags));
	add(o, "tls", tls_status(d));
	add(o, "connections", links);
	add(o, "outages", outage_status(d));
	add(o, "retry", retry_status(d));
	add(o, "io", io_status(d));
	add(o, "move", move_status(d));
	add(o, "warnings", warnings(d));
	return o;
}

static struct json_object *report_list(struct manager *m)
{
	struct json_object *list = json_object_new_array();

	report_refresh(m);
	for (size_t i = 0; m->reports && i < m->reports->n; i++)
		json_object_array_add(list, json_object_new_string(m->reports->list[i].text));
	return list;
}

struct json_object *status_reply( struct manager *m, const struct device *d)
{
	struct json_object *reply = json_object_new_object();
	struct json_object *list = json_object_new_array();

	if (d)
		json_object_array_add(list, status_device(d));
	for (size_t i = 0; i < m->n_devices && !d; i++)
		json_object_array_add(list, status_device(m->devices[i]));
	add(reply, "devices", list);
	add(reply, "warnings", d ? json_object_new_array() : report_list(m));
	return reply;
}

struct json_object *status_gone(bool lost)
{
	struct json_object *reply = json_object_new_object();

	add(reply, "devices", json_object_new_array());
	add(reply, "warnings", json_object_new_array());
	if (lost)
		add(reply, "lost", json_object_new_boolean(true));
	return reply;
}

/* ---- those who watch --------------------------------------------------------------- */

struct watcher {
	struct varlink_call *call;
	char name[CONF_NAME_MAX + 1];	/* of the one device; empty: all */
	bool lost;			/* it went without having been detached */
	bool due;			/* to be told, when it has read what it was */
};

struct watchers {
	struct watcher list[WATCHERS_MAX];
	size_t n;
	struct json_object *all;	/* what those who watch all devices are told; or NULL */
};

static void forget_all(struct watchers *w)
{
	json_object_put(w->all);
	w->all = NULL;
}

static struct json_object *all_devices(struct manager *m)
{
	struct watchers *w = m->watchers;
	bool more = false;

	if (!w->all)
		w->all = status_reply(m, NULL);
	struct json_object *all = json_object_get(w->all);

	for (size_t i = 0; i < w->n; i++)
		more |= w->list[i].due && !w->list[i].name[0];
	if (!more)
		forget_all(w);
	return all;
}

static struct watcher *find_watcher(struct watchers *w, const struct varlink_call *call)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->list[i].call == call)
			return &w->list[i];
	return NULL;
}

/* In the turn of its client, which has read all.  A device that has gone is told of by an
 * empty list. */
static void tell_watcher(struct varlink_call *call, void *userdata)
{
	struct manager *m = userdata;
	struct watcher *w = find_watcher(m->watchers, call);
	const struct device *d;

	if (!w || !w->due)
		return;
	w->due = false;
	d = w->name[0] ? manager_find_named(m, w->name) : NULL;
	varlink_call_notify(call, !w->name[0] ? all_devices(m) : d ? status_reply(m, d)
			    : status_gone(w->lost));
}

static void watcher_gone(struct varlink_call *call, void *userdata)
{
	struct manager *m = userdata;
	struct watchers *all = m->watchers;
	struct watcher *w = find_watcher(all, call);

	if (w)
		*w = all->list[--all->n];
	if (!all->n)
		forget_all(all);
	varlink_call_drop(call);
}

int status_watch(struct manager *m, struct varlink_call *call, const char *name)
{
	struct watcher *w;

	if (!m->watchers)
		m->watchers = calloc(1, sizeof(*m->watchers));
	if (!m->watchers)
		return -ENOMEM;
	if (m->watchers->n == WATCHERS_MAX)
		return -EBUSY;
	w = &m->watchers->list[m->watchers->n++];
	*w = (struct watcher){ .call = call, .due = true };
	snprintf(w->name, sizeof(w->name), "%s", name ? name : "");
	forget_all(m->watchers);
	varlink_call_set_gone(call, watcher_gone, m);
	varlink_call_set_drained(call, tell_watcher, m);
	return 0;
}

void status_lost(const struct device *d)
{
	struct watchers *w = d->manager->watchers;

	for (size_t i = 0; w && i < w->n; i++)
		w->list[i].lost |= strcmp(w->list[i].name, d->name) == 0;
}

void status_renamed(struct manager *m, const char *before, const char *name)
{
	for (size_t i = 0; m->watchers && i < m->watchers->n; i++) {
		struct watcher *w = &m->watchers->list[i];

		if (strcmp(w->name, before) == 0)
			snprintf(w->name, sizeof(w->name), "%s", name);
	}
}

void status_ready(struct manager *m)
{
	m->ready_due = notify_send(m->notify, "READY=1") == -EAGAIN;
	if (m->ready_due)
		save_later(m);
}

static void tell_systemd(const struct manager *m)
{
	size_t out = 0, pending = 0;
	char text[128];

	for (size_t i = 0; i < m->n_devices; i++) {
		out += device_is_out(m->devices[i]);
		pending += m->devices[i]->state == STATE_CONNECTING ||
			   m->devices[i]->state == STATE_ATTACHING;
	}
	snprintf(text, sizeof(text), "STATUS=%zu attached, %zu of them without a server, %zu "
		 "connecting", m->n_devices - pending, out, pending);
	(void)notify_send(m->notify, text);	/* the next one will do */
}

/* Whoever reads slowly is told the state at the time when it has read. */
static void wake_watchers(struct watchers *w)
{
	if (!w)
		return;
	forget_all(w);
	for (size_t i = 0; i < w->n; i++) {
		w->list[i].due = true;
		varlink_call_wake(w->list[i].call);
	}
}

static int on_change(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct manager *m = userdata;

	m->status_timer = sd_event_source_disable_unref(m->status_timer);
	tell_systemd(m);
	manager_load_due(m);
	wake_watchers(m->watchers);
	return 0;
}

void status_changed(struct manager *m)
{
	int r;

	if (m->status_timer)
		return;
	r = sd_event_add_time_relative(m->event, &m->status_timer, CLOCK_MONOTONIC,
				       CHANGE_PAUSE_USEC, USEC_PER_MSEC, on_change, m);
	if (r < 0)
		log_error("cannot plan a status change: %s", strerror(-r));
}
