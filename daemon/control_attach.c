/* The method Attach: keys or a name from the files become a device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/event.h"
#include "daemon/fetch.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/naming.h"
#include "daemon/programs.h"
#include "daemon/proto/varlink.h"

struct attach_request {
	struct varlink_call *call;	/* NULL: its client has left */
	const char *wanted;		/* in the files, should there be no keys */
	const char *name;		/* NULL: nbdN */
	int index;			/* -1: any */
	bool automatic;
	bool fresh;			/* what is attached already is in the way */
	struct device_keys keys;
};

/* Who asked for a device and leaves before it is there does not want it any more.  When it is
 * nbdd that leaves, who asked for it asks the next one. */
static void attacher_gone(struct varlink_call *call, void *userdata)
{
	struct device *d = userdata;

	control_drop_waiter(d->attachers, call);
	if (d->manager->leaving)
		return;
	for (size_t i = 0; i < DEVICE_WAITERS_MAX; i++)
		if (d->attachers[i])
			return;
	if (!d->automatic && (d->state == STATE_CONNECTING || d->state == STATE_ATTACHING))
		device_event(d, EV_DETACH, NULL);
}

void control_reply_attached(struct varlink_call *call, const struct device *d)
{
	struct json_object *params = json_object_new_object();
	struct json_object *warnings = json_object_new_array();
	const char *program = programs_warning(d);
	char path[32];

	snprintf(path, sizeof(path), "/dev/nbd%d", d->index);
	if (d->warning[0])
		json_object_array_add(warnings, json_object_new_string(d->warning));
	if (program)
		json_object_array_add(warnings, json_object_new_string(program));
	json_object_object_add(params, "device", json_object_new_string(path));
	json_object_object_add(params, "name", json_object_new_string(d->name));
	json_object_object_add(params, "index", json_object_new_int(d->index));
	json_object_object_add(params, "warnings", warnings);
	varlink_call_reply(call, params);
}

bool control_param_keys(struct varlink_call *call, struct json_object *params,
			struct device_keys *k)
{
	struct json_object *keys = NULL;
	char error[CONF_ERROR_MAX];

	if (!json_object_object_get_ex(params, "keys", &keys) || !keys)
		return true;
	if (!json_object_is_type(keys, json_type_object)) {
		varlink_call_invalid(call, "keys", "expected an object of strings");
		return false;
	}
	json_object_object_foreach(keys, key, value) {
		struct json_object *reply;

		if (!json_object_is_type(value, json_type_string)) {
			varlink_call_invalid(call, "keys", "expected an object of strings");
			return false;
		}
		if (device_keys_set(k, key, json_object_get_string(value), error) >= 0)
			continue;
		reply = json_object_new_object();
		json_object_object_add(reply, "key", json_object_new_string(key));
		json_object_object_add(reply, "message", json_object_new_string(error));
		varlink_call_error(call, CONTROL_ERROR_INVALID_KEY, reply);
		return false;
	}
	return true;
}

/* The device that the request means when it is there already, by name, number or keys. */
static struct device *find_same(struct manager *m, const struct attach_request *a)
{
	struct device *d = NULL;

	if (a->name)
		d = manager_find(m, a->name);
	if (!d && a->index >= 0) {
		d = manager_find_index(m, (unsigned)a->index);
		if (d && device_index_is_guess(d) && !device_keys_equal(&d->keys, &a->keys))
			d = NULL;		/* any other number does for it */
	}
	for (size_t i = 0; !d && !a->name && a->index < 0 && !a->fresh && i < m->n_devices; i++)
		if (device_keys_equal(&m->devices[i]->keys, &a->keys))
			d = m->devices[i];
	return d;
}

/* Attached already: the same is a success, anything else is in the way. */
static void attach_again(struct attach_request *a, struct device *d)
{
	char text[CONF_ERROR_MAX];

	if (a->fresh) {
		snprintf(text, sizeof(text), "device '%s' (/dev/nbd%d) is attached already",
			 d->name, d->index);
		control_reply_error(a->call, CONTROL_ERROR_BUSY, "message", text);
	} else if (!device_keys_equal(&d->keys, &a->keys) ||
	    (a->index >= 0 && d->index != a->index) ||
	    (a->name && strcmp(a->name, d->name) != 0)) {
		snprintf(text, sizeof(text), "device '%s' (/dev/nbd%d) is in use for other "
			 "keys: detach it first, or take another name and device", d->name,
			 d->index);
		control_reply_error(a->call, CONTROL_ERROR_BUSY, "message", text);
	} else if (d->state == STATE_DETACHING) {
		control_reply_error(a->call, CONTROL_ERROR_BUSY, "message",
			    "the device is being detached: try again when that is done");
	} else if (d->state == STATE_CONNECTING || d->state == STATE_ATTACHING) {
		if (control_add_waiter(d->attachers, a->call))
			varlink_call_set_gone(a->call, attacher_gone, d);
	} else {
		control_reply_attached(a->call, d);
	}
}

static int attach_new(struct manager *m, struct attach_request *a)
{
	char name[DEVICE_NODE_MAX];
	struct device *d;
	bool fixed = a->index >= 0;
	int r;

	if (!fixed)
		a->index = manager_free_index(m, -1);
	device_node_name(a->index, name);
	r = device_new(m, a->name ? a->name : name, a->index, a->automatic, &a->keys, &d);
	if (r < 0)
		return r;
	d->index_fixed = fixed;
	r = manager_add(m, d);
	if (r < 0) {
		device_free(d);
		return r;
	}
	d->attachers[0] = a->call;
	varlink_call_set_gone(a->call, attacher_gone, d);
	device_event(d, EV_START, NULL);
	return 0;
}

static void attach_checked(struct manager *m, struct attach_request *a)
{
	struct device *same = find_same(m, a);
	char error[CONF_ERROR_MAX];
	int r;

	if (same) {
		attach_again(a, same);
		return;
	}
	if (device_keys_check(&a->keys, error) < 0) {
		control_reply_error(a->call, CONTROL_ERROR_FAILED, "message", error);
		return;
	}
	r = attach_new(m, a);
	if (r == -ENOSPC)
		control_reply_error(a->call, CONTROL_ERROR_BUSY, "message",
			    "1024 devices are attached already, which is the limit");
	else if (r < 0)
		control_reply_error(a->call, CONTROL_ERROR_FAILED, "message", strerror(-r));
}

static void request_free(struct attach_request *a)
{
	if (a)
		device_keys_deinit(&a->keys);
	free(a);
}

/* ---- a name or device alone: what the files say ------------------------------------- */

static bool take_configured(struct manager *m, struct attach_request *a)
{
	const struct conf_device *c = m->conf ? conf_find(m->conf, a->wanted) : NULL;

	if (!c) {
		control_reply_no_device(a->call, a->wanted);
		return false;
	}
	a->name = c->name;
	a->index = c->index >= 0 ? c->index : a->index;
	a->automatic = c->automatic;
	device_keys_deinit(&a->keys);
	device_keys_init(&a->keys);
	if (device_keys_copy(&a->keys, &c->keys) >= 0)
		return true;
	control_reply_error(a->call, CONTROL_ERROR_FAILED, "message", strerror(ENOMEM));
	return false;
}

static void attach_configured(struct manager *m, struct attach_request *a, int r)
{
	if (r < 0)
		log_warning("%s: what the files said before is taken, for they cannot be read "
			    "now: %s", a->wanted, conf_fetch_strerror(r));
	if (take_configured(m, a))
		attach_checked(m, a);
}

/* Nobody knows yet what is in them: nbd@.service asks again. */
static void reply_unread(struct attach_request *a, int r)
{
	char text[CONF_ERROR_MAX];

	snprintf(text, sizeof(text), "cannot read the configuration now: %s",
		 conf_fetch_strerror(r));
	control_reply_error(a->call, CONTROL_ERROR_CONNECT_FAILED, "message", text);
}

/* Files that cannot be read say what they have said before. */
static void on_fetched(struct manager *m, int r, struct conf *fresh, void *userdata)
{
	struct attach_request *a = userdata;

	if (a->call)
		varlink_call_set_gone(a->call, NULL, NULL);
	if (r >= 0)
		manager_set_conf(m, fresh);
	if (a->call && r < 0 && (r == -ECANCELED || !m->conf))
		reply_unread(a, r);
	else if (a->call)
		attach_configured(m, a, r);
	request_free(a);
}

static void asker_gone(struct varlink_call *call, void *userdata)
{
	struct attach_request *a = userdata;

	a->call = NULL;
	varlink_call_drop(call);
}

/* ---- the method --------------------------------------------------------------------- */

/* False: CALL has been answered. */
static bool read_request(struct varlink_call *call, struct json_object *params,
			 struct attach_request *a)
{
	const char *device = NULL;
	unsigned index;

	if (!varlink_param_string(call, params, "name", false, &a->name) ||
	    !varlink_param_string(call, params, "device", false, &device) ||
	    !varlink_param_bool(call, params, "fresh", &a->fresh))
		return false;
	if (a->name && conf_check_name(a->name) < 0) {
		varlink_call_invalid(call, "name", "a name is 1 to 128 letters, digits and ._@:-");
		return false;
	}
	if (device && conf_parse_device(device, &index) < 0) {
		varlink_call_invalid(call, "device", "expected /dev/nbdN");
		return false;
	}
	if (device)
		a->index = (int)index;
	if (a->name && conf_parse_device(a->name, &index) == 0) {
		if (device && a->index != (int)index) {
			control_reply_error(call, CONTROL_ERROR_FAILED, "message",
					    "nbdN is the name of /dev/nbdN alone: take another");
			return false;
		}
		a->index = (int)index;
	}
	if (!control_param_keys(call, params, &a->keys))
		return false;
	a->wanted = a->name ? a->name : device;
	if (!a->keys.set && !a->wanted)
		varlink_call_invalid(call, "keys", "expected a uri or addresses, or a name");
	return a->keys.set || a->wanted;
}

void control_method_attach(struct varlink_call *call, struct json_object *params,
			   void *userdata)
{
	struct attach_request *a = calloc(1, sizeof(*a));

	if (!a) {
		control_reply_error(call, CONTROL_ERROR_FAILED, "message", strerror(ENOMEM));
		return;
	}
	a->call = call;
	a->index = -1;
	device_keys_init(&a->keys);
	if (!read_request(call, params, a)) {
		request_free(a);
	} else if (a->keys.set) {
		attach_checked(userdata, a);
		request_free(a);
	} else {
		varlink_call_set_gone(call, asker_gone, a);
		conf_fetch(userdata, on_fetched, a);
	}
}
