#include "daemon/reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/device_tls.h"
#include "daemon/event.h"
#include "daemon/fetch.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/move.h"
#include "daemon/outage.h"
#include "daemon/proto/varlink.h"
#include "daemon/retry.h"
#include "daemon/save.h"
#include "daemon/transitions.h"
#include "lib/util/units.h"

struct reload {
	struct manager *manager;
	struct varlink_call *call;	/* or NULL */
	struct json_object *rows;	/* what was done, one for each device */
	unsigned pending;		/* moves under way, and one while rows are added */
};

/* ---- what is told ------------------------------------------------------------------ */

static void add_string(struct json_object *o, const char *name, const char *value)
{
	json_object_object_add(o, name, json_object_new_string(value));
}

static struct json_object *key_names(uint64_t keys)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < n_conf_keys; i++)
		if (keys & (UINT64_C(1) << i))
			json_object_array_add(list, json_object_new_string(conf_keys[i].name));
	return list;
}

static struct json_object *add_row(struct reload *r, const char *name, int index)
{
	struct json_object *row = json_object_new_object();
	char path[32] = "";

	if (index >= 0)
		snprintf(path, sizeof(path), "/dev/nbd%d", index);
	add_string(row, "name", name);
	add_string(row, "device", path);
	add_string(row, "action", "unchanged");
	json_object_object_add(row, "keys", json_object_new_array());
	json_object_object_add(row, "fixed", json_object_new_array());
	add_string(row, "message", "");
	json_object_array_add(r->rows, row);
	return row;
}

/* Setting a member again replaces it. */
static void tell(struct json_object *row, const char *action, const char *message)
{
	struct json_object *name = json_object_object_get(row, "name");

	add_string(row, "action", action);
	add_string(row, "message", message);
	log_notice("%s: reload: %s%s%s", json_object_get_string(name), action,
		   *message ? ": " : "", message);
}

static void release(struct reload *r)
{
	struct manager *m = r->manager;
	struct json_object *reply;

	if (--r->pending)
		return;
	m->reload = NULL;
	if (r->call) {
		reply = json_object_new_object();
		json_object_object_add(reply, "devices", r->rows);
		varlink_call_reply(r->call, reply);
	} else {
		json_object_put(r->rows);
	}
	free(r);
}

void reload_free(struct reload *r)
{
	if (!r)
		return;
	if (r->call)
		control_reply_error(r->call, CONTROL_ERROR_FAILED, "message", "nbdd is ending");
	json_object_put(r->rows);
	free(r);
}

/* ---- one device -------------------------------------------------------------------- */

/* Keys that count from now on, without a new connection. */
static void change_live(struct device *d, struct device_keys *keys)
{
	struct device_keys old = d->keys;

	d->keys = *keys;
	*keys = old;
	device_apply_keys(d);
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE && d->links[i].fd >= 0)
			link_set_keepalive(&d->links[i]);
	d->timeout_due |= d->keys.timeout_usec != old.timeout_usec;
	d->waits_longer |= d->keys.dead_timeout_usec != old.dead_timeout_usec;
	d->settings_due = true;
	links_restore(d);
	if (d->outages.began_usec) {
		d->dead_timer = sd_event_source_disable_unref(d->dead_timer);
		outage_resume(d);
		retry_now(d);
	}
}

struct moving {
	struct reload *reload;
	struct json_object *row;
};

static void on_moved(struct device *d, const char *error, const char *text,
		     uint64_t pause_usec, void *userdata)
{
	struct moving *mv = userdata;
	char message[DEVICE_REASON_MAX], time[FORMAT_MAX];

	if (!error)
		snprintf(message, sizeof(message), "I/O waited %s%s%s",
			 format_usec(time, pause_usec), *text ? "; " : "", text);
	tell(mv->row, error ? "not-moved" : "moved", error ? text : message);
	release(mv->reload);
	free(mv);
}

static void start_move(struct reload *r, struct device *d, const struct device_keys *keys,
		       struct json_object *row)
{
	struct moving *mv = malloc(sizeof(*mv));

	if (mv)
		*mv = (struct moving){ .reload = r, .row = row };
	if (!mv || move_new(d, keys, false, on_moved, mv) < 0) {
		free(mv);
		tell(row, "failed", "out of memory");
		return;
	}
	r->pending++;
	device_event(d, EV_MOVE, NULL);
}

static bool is_attached(const struct device *d)
{
	return d->state != STATE_CONNECTING && d->state != STATE_ATTACHING;
}

/* The keys of the file, but for those that the kernel was told at attach. */
static int wanted_keys(const struct device *d, const struct conf_device *c,
		       struct json_object *row, struct device_keys *ret)
{
	uint64_t differ = device_keys_differ(&d->keys, &c->keys), fixed = 0;
	struct json_object *list;
	int r = device_keys_copy(ret, &c->keys);

	for (size_t i = 0; i < n_conf_keys; i++)
		if (differ & (UINT64_C(1) << i) && conf_keys[i].change == CONF_ATTACH)
			fixed |= UINT64_C(1) << i;
	if (r >= 0) {
		r = device_keys_keep(ret, &d->keys, fixed);
		if (r < 0)
			device_keys_deinit(ret);
	}
	list = key_names(fixed);
	if (c->index >= 0 && c->index != d->index)
		json_object_array_add(list, json_object_new_string("device"));
	json_object_object_add(row, "keys", key_names(differ & ~fixed));
	json_object_object_add(row, "fixed", list);
	return r;
}

static void change(struct reload *r, struct device *d, const struct conf_device *c)
{
	struct json_object *row = add_row(r, d->name, d->index), *fixed;
	struct device_keys keys;
	uint64_t differ;
	int e;

	if (d->move || d->state == STATE_MOVING || d->state == STATE_DETACHING ||
	    d->detach_wanted) {
		tell(row, "busy", "it is being moved or detached; reload again");
		return;
	}
	e = wanted_keys(d, c, row, &keys);
	if (e < 0) {
		tell(row, "failed", strerror(-e));
		return;
	}
	d->automatic = c->automatic;
	device_tls_refresh(d);
	differ = device_keys_differ(&d->keys, &keys);
	if (conf_change_of(differ) >= CONF_RECONNECT) {
		start_move(r, d, &keys, row);
	} else if (differ) {
		bool waits = device_is_out(d) &&
			     d->keys.dead_timeout_usec != keys.dead_timeout_usec;

		change_live(d, &keys);
		tell(row, "changed", waits ? "what waits for the server already, and all behind "
					     "it, keeps the former dead-timeout" : "");
	}
	fixed = json_object_object_get(row, "fixed");
	if (json_object_array_length(fixed))
		device_log(d, LOG_WARNING, "reload: only a detach and attach would change %s",
			   json_object_to_json_string(fixed));
	device_keys_deinit(&keys);
	save_device(d);		/* or the next nbdd has what was there before */
}

/* Not attached yet: begin anew with other keys. */
static void begin_anew(struct reload *r, struct device *d, const struct conf_device *c)
{
	struct json_object *row = add_row(r, c->name, c->index);

	if (device_keys_equal(&d->keys, &c->keys) && (c->index < 0 || c->index == d->index))
		return;
	if (d->state == STATE_ATTACHING) {
		tell(row, "busy", "it is being attached; reload again");
		return;
	}
	device_event(d, EV_DETACH, NULL);
	manager_load_device(r->manager, c);
	tell(row, "attaching", "");
}

static void follow(struct reload *r, const struct conf_device *c)
{
	struct device *d = manager_find_named(r->manager, c->name);

	if (d && is_attached(d))
		change(r, d, c);
	else if (d && c->automatic)
		begin_anew(r, d, c);
	else if (!d && c->automatic) {
		struct json_object *row = add_row(r, c->name, c->index);

		manager_load_device(r->manager, c);
		tell(row, "attaching", "");
	}
}

/* Those of the files before, which are in them no more. */
static void leave(struct reload *r)
{
	struct manager *m = r->manager;

	for (size_t i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];
		struct json_object *row;

		if (!d->automatic || conf_find_named(m->conf, d->name))
			continue;
		d->automatic = false;
		row = add_row(r, d->name, d->index);
		if (is_attached(d)) {
			tell(row, "unconfigured", "it is no longer in the files, and stays "
			     "attached until 'nbdctl detach'");
			save_device(d);
		} else {
			tell(row, "given-up", "it is no longer in the files");
			device_event(d, EV_DETACH, NULL);
			i = SIZE_MAX;		/* the list has changed: from the start */
		}
	}
}

/* ---- the whole --------------------------------------------------------------------- */

static struct json_object *problems(const struct conf *c)
{
	struct json_object *list = json_object_new_array();
	char text[CONF_ERROR_MAX + 4096];

	for (size_t i = 0; i < c->n_problems; i++) {
		const struct conf_problem *p = &c->problems[i];

		snprintf(text, sizeof(text), "%s:%u: %s: %s", p->file, p->line,
			 p->fatal ? "error" : "warning", p->text);
		log_line(p->fatal ? LOG_ERR : LOG_WARNING, "reload: %s", text);
		json_object_array_add(list, json_object_new_string(text));
	}
	return list;
}

static bool broken(const struct conf *c)
{
	for (size_t i = 0; i < c->n_problems; i++)
		if (c->problems[i].fatal)
			return true;
	return false;
}

static void refuse(struct varlink_call *call, const char *why)
{
	log_error("reload: %s; nothing has been changed", why);
	if (call)
		control_reply_error(call, CONTROL_ERROR_FAILED, "message", why);
}

static void refuse_files(struct varlink_call *call, const struct conf *c)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "problems", problems(c));
	log_error("reload: the files have errors; nothing has been changed");
	if (call)
		varlink_call_error(call, MANAGER_ERROR("BadConfiguration"), o);
	else
		json_object_put(o);
}

static void caller_gone(struct varlink_call *call, void *userdata)
{
	struct reload *r = userdata;

	r->call = NULL;
	varlink_call_drop(call);
}

static void apply(struct manager *m, struct conf *fresh, struct varlink_call *call)
{
	struct reload *r = calloc(1, sizeof(*r));

	if (!r) {
		conf_free(fresh);
		refuse(call, "out of memory");
		return;
	}
	manager_set_conf(m, fresh);
	*r = (struct reload){ .manager = m, .call = call, .pending = 1,
			      .rows = json_object_new_array() };
	m->reload = r;
	if (call)
		varlink_call_set_gone(call, caller_gone, r);
	json_object_put(problems(fresh));
	for (size_t i = 0; i < fresh->n_devices; i++)
		follow(r, &fresh->devices[i]);
	leave(r);
	release(r);
}

static void on_fetched(struct manager *m, int r, struct conf *fresh, void *userdata)
{
	struct varlink_call *call = userdata;
	char why[256];

	m->reloading = false;
	if (r < 0) {
		snprintf(why, sizeof(why), "the configuration cannot be read now: %s",
			 conf_fetch_strerror(r));
		refuse(call, why);
	} else if (broken(fresh)) {
		refuse_files(call, fresh);
		conf_free(fresh);
	} else {
		apply(m, fresh, call);
	}
}

void reload_begin(struct manager *m, struct varlink_call *call)
{
	if (m->reload || m->reloading) {
		refuse(call, "another reload is under way");
		return;
	}
	m->reloading = true;
	conf_fetch(m, on_fetched, call);
}

void control_method_reload(struct varlink_call *call, struct json_object *params,
			   void *userdata)
{
	reload_begin(userdata, call);
}
