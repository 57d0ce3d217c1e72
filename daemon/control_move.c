/* The method Move: keys over those of the device, and what came of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/event.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/proto/varlink.h"
#include "daemon/status.h"

static void add_string(struct json_object *o, const char *name, const char *value)
{
	json_object_object_add(o, name, json_object_new_string(value));
}

static struct json_object *warnings(const struct move *mv)
{
	struct json_object *list = json_object_new_array();
	char text[DEVICE_REASON_MAX];

	if (!mv->compares)
		snprintf(text, sizeof(text), "size, flags and block sizes were compared, the "
			 "data was not: %s", mv->force ? "so it was asked for" :
			 "the device had no server to read it from");
	else if (mv->n_changing)
		snprintf(text, sizeof(text), "%u of the blocks were written each time that "
			 "they were compared", mv->n_changing);
	else
		text[0] = '\0';
	if (*text)
		json_object_array_add(list, json_object_new_string(text));
	if (mv->warning[0])
		json_object_array_add(list, json_object_new_string(mv->warning));
	return list;
}

static void reply_moved(struct varlink_call *call, const struct device *d,
			uint64_t pause_usec)
{
	struct json_object *o = json_object_new_object();
	const struct move *mv = d->move;
	char path[32], uri[STATUS_URI_MAX];

	snprintf(path, sizeof(path), "/dev/nbd%d", d->index);
	add_string(o, "device", path);
	add_string(o, "name", d->name);
	add_string(o, "from", status_uri(&mv->keys, uri));
	add_string(o, "to", status_uri(&d->keys, uri));
	add_string(o, "peer", d->links[0].peer);
	json_object_object_add(o, "compared", json_object_new_int((int)mv->n_compared));
	json_object_object_add(o, "pause_usec", json_object_new_int64((int64_t)pause_usec));
	json_object_object_add(o, "warnings", warnings(mv));
	varlink_call_reply(call, o);
}

static void on_done(struct device *d, const char *error, const char *text,
		    uint64_t pause_usec, void *userdata)
{
	if (error)
		control_reply_error(userdata, error, "message", text);
	else
		reply_moved(userdata, d, pause_usec);
}

static void caller_gone(struct varlink_call *call, void *userdata)
{
	varlink_call_drop(call);
	move_forget(userdata);
}

static const char *why_not_now(const struct device *d)
{
	if (d->move)
		return "the device is on its way to another server already";
	if (d->state == STATE_CONNECTING || d->state == STATE_ATTACHING)
		return "the device is not attached yet";
	return d->state == STATE_DETACHING || d->detach_wanted ?
		"the device is being detached" : NULL;
}

/* A key that the kernel was told at attach. */
static const char *fixed_key(const struct device_keys *old, const struct device_keys *new)
{
	uint64_t differ = device_keys_differ(old, new);

	for (size_t i = 0; i < n_conf_keys; i++)
		if (differ & (UINT64_C(1) << i) && conf_keys[i].change == CONF_ATTACH)
			return conf_keys[i].name;
	return NULL;
}

static bool check_keys(struct varlink_call *call, const struct device *d,
		       const struct device_keys *keys)
{
	const char *fixed = fixed_key(&d->keys, keys);
	char error[CONF_ERROR_MAX];
	struct json_object *o;

	if (!fixed && device_keys_check(keys, error) >= 0)
		return true;
	if (fixed)
		snprintf(error, sizeof(error), "%s cannot change while the device is attached",
			 fixed);
	o = json_object_new_object();
	add_string(o, "key", fixed ? fixed : "");
	add_string(o, "message", error);
	varlink_call_error(call, CONTROL_ERROR_INVALID_KEY, o);
	return false;
}

static void move_to(struct varlink_call *call, struct device *d, struct device_keys *given,
		    bool force)
{
	struct device_keys keys;
	int r = device_keys_copy(&keys, &d->keys);

	if (r >= 0) {
		r = device_keys_overlay(&keys, given);
		if (r >= 0 && check_keys(call, d, &keys)) {
			r = move_new(d, &keys, force, on_done, call);
			if (r >= 0) {
				varlink_call_set_gone(call, caller_gone, d);
				device_event(d, EV_MOVE, NULL);
			}
		}
		device_keys_deinit(&keys);
	}
	if (r < 0)
		control_reply_error(call, CONTROL_ERROR_FAILED, "message", strerror(-r));
}

void control_method_move(struct varlink_call *call, struct json_object *params,
			 void *userdata)
{
	struct device_keys given;
	const char *busy;
	bool force = false;
	struct device *d;

	if (!varlink_param_bool(call, params, "force", &force))
		return;
	d = control_param_device(call, params, userdata);
	if (!d)
		return;
	busy = why_not_now(d);
	if (busy) {
		control_reply_error(call, CONTROL_ERROR_BUSY, "message", busy);
		return;
	}
	device_keys_init(&given);
	if (control_param_keys(call, params, &given))
		move_to(call, d, &given, force);
	device_keys_deinit(&given);
}
