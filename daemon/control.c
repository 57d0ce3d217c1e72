#include "daemon/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/errand.h"
#include "daemon/event.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/proto/manager.h"
#include "daemon/proto/varlink.h"
#include "daemon/retry.h"
#include "daemon/status.h"
#include "lib/util/cleanup.h"

#define CONTROL_BACKLOG 64

static void reply_error(struct varlink_call *call, const char *error, const char *member,
			const char *text)
{
	struct json_object *params = json_object_new_object();

	json_object_object_add(params, member, json_object_new_string(text));
	varlink_call_error(call, error, params);
}

static void reply_no_device(struct varlink_call *call, const char *name)
{
	reply_error(call, CONTROL_ERROR_NO_SUCH_DEVICE, "device", name);
}

/* ---- calls that wait for a device -------------------------------------------------- */

static bool add_waiter(struct varlink_call **waiters, struct varlink_call *call)
{
	for (size_t i = 0; i < DEVICE_WAITERS_MAX; i++)
		if (!waiters[i]) {
			waiters[i] = call;
			return true;
		}
	reply_error(call, CONTROL_ERROR_BUSY, "message",
		    "too many calls wait for this device already");
	return false;
}

static struct varlink_call *next_waiter(struct varlink_call **waiters)
{
	for (size_t i = 0; i < DEVICE_WAITERS_MAX; i++)
		if (waiters[i])
			return STEAL_PTR(waiters[i]);
	return NULL;
}

static bool drop_waiter(struct varlink_call **waiters, struct varlink_call *call)
{
	for (size_t i = 0; i < DEVICE_WAITERS_MAX; i++)
		if (waiters[i] == call) {
			waiters[i] = NULL;
			varlink_call_drop(call);
			return true;
		}
	return false;
}

/* Who asked for a device and leaves before it is there does not want it any more. */
static void attacher_gone(struct varlink_call *call, void *userdata)
{
	struct device *d = userdata;

	drop_waiter(d->attachers, call);
	for (size_t i = 0; i < DEVICE_WAITERS_MAX; i++)
		if (d->attachers[i])
			return;
	if (!d->automatic && (d->state == STATE_CONNECTING || d->state == STATE_ATTACHING))
		device_event(d, EV_DETACH, NULL);
}

static void detacher_gone(struct varlink_call *call, void *userdata)
{
	struct device *d = userdata;

	drop_waiter(d->detachers, call);
}

static void reply_attached(struct varlink_call *call, const struct device *d)
{
	struct json_object *params = json_object_new_object();
	struct json_object *warnings = json_object_new_array();
	char path[32];

	snprintf(path, sizeof(path), "/dev/nbd%d", d->index);
	if (d->warning[0])
		json_object_array_add(warnings, json_object_new_string(d->warning));
	json_object_object_add(params, "device", json_object_new_string(path));
	json_object_object_add(params, "name", json_object_new_string(d->name));
	json_object_object_add(params, "index", json_object_new_int(d->index));
	json_object_object_add(params, "warnings", warnings);
	varlink_call_reply(call, params);
}

void control_attach_done(struct device *d)
{
	struct varlink_call *call;

	while ((call = next_waiter(d->attachers)))
		reply_attached(call, d);
}

void control_attach_failed(struct device *d, const char *error)
{
	struct varlink_call *call;

	while ((call = next_waiter(d->attachers)))
		reply_error(call, error, "message", d->last_error);
}

void control_detach_done(struct device *d, int r)
{
	struct varlink_call *call;

	while ((call = next_waiter(d->detachers))) {
		if (r < 0)
			reply_error(call, CONTROL_ERROR_FAILED, "message", d->last_error);
		else
			varlink_call_reply(call, NULL);
	}
}

/* ---- Attach ------------------------------------------------------------------------ */

struct attach_request {
	struct varlink_call *call;
	const char *name;		/* NULL: nbdN */
	int index;			/* -1: any */
	bool automatic;
	struct device_keys keys;
};

static bool take_keys(struct attach_request *a, struct json_object *params)
{
	struct json_object *keys = NULL;
	char error[CONF_ERROR_MAX];

	if (!json_object_object_get_ex(params, "keys", &keys) || !keys)
		return true;
	if (!json_object_is_type(keys, json_type_object)) {
		varlink_call_invalid(a->call, "keys", "expected an object of strings");
		return false;
	}
	json_object_object_foreach(keys, key, value) {
		struct json_object *reply;

		if (!json_object_is_type(value, json_type_string)) {
			varlink_call_invalid(a->call, "keys", "expected an object of strings");
			return false;
		}
		if (device_keys_set(&a->keys, key, json_object_get_string(value), error) >= 0)
			continue;
		reply = json_object_new_object();
		json_object_object_add(reply, "key", json_object_new_string(key));
		json_object_object_add(reply, "message", json_object_new_string(error));
		varlink_call_error(a->call, CONTROL_ERROR_INVALID_KEY, reply);
		return false;
	}
	return true;
}

/* A name or device alone: take what the files say.  They are read again unless a device
 * is out, which might be the one that holds them. */
static bool take_configured(struct manager *m, struct attach_request *a,
			    const char *wanted)
{
	const struct conf_device *c;

	manager_read_conf(m);
	c = m->conf ? conf_find(m->conf, wanted) : NULL;
	if (!c) {
		reply_no_device(a->call, wanted);
		return false;
	}
	a->name = c->name;
	a->index = c->index >= 0 ? c->index : a->index;
	a->automatic = c->automatic;
	device_keys_deinit(&a->keys);
	device_keys_init(&a->keys);
	return device_keys_copy(&a->keys, &c->keys) >= 0;
}

/* The device that the request means when it is there already, by name, number or keys. */
static struct device *find_same(struct manager *m, const struct attach_request *a)
{
	struct device *d = NULL;

	if (a->name)
		d = manager_find(m, a->name);
	if (!d && a->index >= 0)
		d = manager_find_index(m, (unsigned)a->index);
	for (size_t i = 0; !d && !a->name && a->index < 0 && i < m->n_devices; i++)
		if (device_keys_equal(&m->devices[i]->keys, &a->keys))
			d = m->devices[i];
	return d;
}

/* Attached already: the same is a success, anything else is in the way. */
static void attach_again(struct attach_request *a, struct device *d)
{
	char text[CONF_ERROR_MAX];

	if (!device_keys_equal(&d->keys, &a->keys) ||
	    (a->index >= 0 && d->index != a->index) ||
	    (a->name && strcmp(a->name, d->name) != 0)) {
		snprintf(text, sizeof(text), "device '%s' (/dev/nbd%d) is in use for other "
			 "keys: detach it first, or take another name and device", d->name,
			 d->index);
		reply_error(a->call, CONTROL_ERROR_BUSY, "message", text);
	} else if (d->state == STATE_DETACHING) {
		reply_error(a->call, CONTROL_ERROR_BUSY, "message",
			    "the device is being detached: try again when that is done");
	} else if (d->state == STATE_CONNECTING || d->state == STATE_ATTACHING) {
		if (add_waiter(d->attachers, a->call))
			varlink_call_set_gone(a->call, attacher_gone, d);
	} else {
		reply_attached(a->call, d);
	}
}

static int attach_new(struct manager *m, struct attach_request *a)
{
	char name[32];
	struct device *d;
	bool fixed = a->index >= 0;
	int r;

	if (!fixed)
		a->index = manager_free_index(m, -1);
	snprintf(name, sizeof(name), "nbd%d", a->index);
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
		reply_error(a->call, CONTROL_ERROR_FAILED, "message", error);
		return;
	}
	r = attach_new(m, a);
	if (r == -ENOSPC)
		reply_error(a->call, CONTROL_ERROR_BUSY, "message",
			    "1024 devices are attached already, which is the limit");
	else if (r < 0)
		reply_error(a->call, CONTROL_ERROR_FAILED, "message", strerror(-r));
}

static void method_attach(struct varlink_call *call, struct json_object *params,
			  void *userdata)
{
	struct attach_request a = { .call = call, .index = -1 };
	const char *device = NULL;
	unsigned index;

	device_keys_init(&a.keys);
	if (!varlink_param_string(call, params, "name", false, &a.name) ||
	    !varlink_param_string(call, params, "device", false, &device))
		goto out;
	if (a.name && conf_check_name(a.name) < 0) {
		varlink_call_invalid(call, "name", "a name is 1 to 128 letters, digits and ._@:-");
		goto out;
	}
	if (device && conf_parse_device(device, &index) < 0) {
		varlink_call_invalid(call, "device", "expected /dev/nbdN");
		goto out;
	}
	if (device)
		a.index = (int)index;
	if (!take_keys(&a, params))
		goto out;
	if (!a.keys.set && !a.name && !device) {
		varlink_call_invalid(call, "keys", "expected a uri or addresses, or a name");
		goto out;
	}
	if (!a.keys.set && !take_configured(userdata, &a, a.name ? a.name : device))
		goto out;
	attach_checked(userdata, &a);
out:
	device_keys_deinit(&a.keys);
}

/* ---- Detach ------------------------------------------------------------------------ */

static struct json_object *holder_json(const struct nbdk_holder *h)
{
	static const char *const kinds[] = {
		[NBDK_HOLDER_MOUNT] = "mount", [NBDK_HOLDER_SWAP] = "swap",
		[NBDK_HOLDER_DEVICE] = "device", [NBDK_HOLDER_PROCESS] = "process",
	};
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "kind", json_object_new_string(kinds[h->kind]));
	json_object_object_add(o, "device", json_object_new_string(h->device));
	json_object_object_add(o, "text", json_object_new_string(h->text));
	json_object_object_add(o, "pid", json_object_new_int(h->pid));
	return o;
}

static void reply_held(struct device *d, const struct errand_result *result)
{
	struct varlink_call *call;
	char path[32];

	snprintf(path, sizeof(path), "/dev/nbd%d", d->index);
	while ((call = next_waiter(d->detachers))) {
		struct json_object *params = json_object_new_object();
		struct json_object *list = json_object_new_array();

		for (size_t i = 0; i < result->n_holders; i++)
			json_object_array_add(list, holder_json(&result->holders[i]));
		json_object_object_add(params, "device", json_object_new_string(path));
		json_object_object_add(params, "holders", list);
		varlink_call_error(call, CONTROL_ERROR_DEVICE_HELD, params);
	}
}

/* What cannot be found out stands in the way like a holder. */
static void on_holders(struct device *d, const struct errand_result *result)
{
	if (result->error < 0) {
		device_set_error(d, "cannot find out who holds the device: %s",
				 strerror(-result->error));
		control_detach_done(d, result->error);
	} else if (result->n_holders) {
		reply_held(d, result);
	} else {
		device_event(d, EV_DETACH, NULL);
	}
}

static void detach(struct device *d, bool force)
{
	bool attached = d->state != STATE_CONNECTING && d->state != STATE_ATTACHING;
	int r;

	if (d->state == STATE_DETACHING)
		return;
	d->detach_forced = force;
	if (force || !attached) {
		device_event(d, EV_DETACH, NULL);
		return;
	}
	d->errand = errand_cancel(d->errand);
	r = errand_holders(d, on_holders);
	if (r < 0)
		on_holders(d, &(struct errand_result){ .error = r });
}

static struct device *param_device(struct varlink_call *call, struct json_object *params,
				   struct manager *m)
{
	const char *name = NULL;
	struct device *d;

	if (!varlink_param_string(call, params, "device", true, &name))
		return NULL;
	d = manager_find(m, name);
	if (!d)
		reply_no_device(call, name);
	return d;
}

static void method_detach(struct varlink_call *call, struct json_object *params,
			  void *userdata)
{
	struct device *d;
	bool force = false;

	if (!varlink_param_bool(call, params, "force", &force))
		return;
	d = param_device(call, params, userdata);
	if (!d || !add_waiter(d->detachers, call))
		return;
	varlink_call_set_gone(call, detacher_gone, d);
	detach(d, force);
}

/* ---- Status, Reconnect ------------------------------------------------------------- */

static void method_status(struct varlink_call *call, struct json_object *params,
			  void *userdata)
{
	struct manager *m = userdata;
	const char *name = NULL;
	struct device *d = NULL;

	if (!varlink_param_string(call, params, "device", false, &name))
		return;
	if (name && !(d = manager_find(m, name))) {
		reply_no_device(call, name);
		return;
	}
	if (!varlink_call_wants_more(call))
		varlink_call_reply(call, status_reply(m, d));
	else if (status_watch(m, call, d ? d->name : NULL) < 0)
		reply_error(call, CONTROL_ERROR_BUSY, "message", "too many watch already");
}

static void method_reconnect(struct varlink_call *call, struct json_object *params,
			     void *userdata)
{
	struct device *d = param_device(call, params, userdata);

	if (!d)
		return;
	device_log(d, LOG_NOTICE, "reconnect asked for");
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE)
			link_cut(&d->links[i], "reconnect was asked for");
	if (device_is_out(d) || d->state == STATE_DEGRADED || d->state == STATE_CONNECTING)
		retry_now(d);
	varlink_call_reply(call, NULL);
}

static const struct varlink_method methods[] = {
	{ "Attach", true, method_attach },
	{ "Detach", true, method_detach },
	{ "Status", false, method_status },
	{ "Reconnect", true, method_reconnect },
};

static const struct varlink_interface interface = {
	.name = MANAGER_INTERFACE,
	.description = io_nbdd_Manager_varlink,
	.methods = methods,
	.n_methods = ARRAY_SIZE(methods),
};

/* ---- the socket -------------------------------------------------------------------- */

/* The file is ours by the lock on the runtime directory: a stale one may go. */
static int listen_on(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(path, 0666) < 0 || listen(fd, CONTROL_BACKLOG) < 0)
		return -errno;
	return STEAL_FD(fd);
}

static void on_varlink_log(const char *text, void *userdata)
{
	log_warning("control: %s", text);
}

int control_open(struct manager *m)
{
	char path[4096];
	int fd, r;

	snprintf(path, sizeof(path), "%s/" MANAGER_SOCKET, m->options.runtime_dir);
	if (sd_listen_fds(1) == 1 && sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1,
							NULL, 0) > 0)
		fd = SD_LISTEN_FDS_START;
	else
		fd = listen_on(path);
	if (fd < 0) {
		log_error("cannot listen on %s: %s", path, strerror(-fd));
		return fd;
	}
	r = varlink_server_new(m->event, fd, &interface, m, &m->server);
	if (r < 0) {
		log_error("cannot serve on %s: %s", path, strerror(-r));
		return r;
	}
	varlink_server_set_log(m->server, on_varlink_log, m);
	return 0;
}
