#include "daemon/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/disposal.h"
#include "daemon/event.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/news.h"
#include "daemon/manager.h"
#include "daemon/proto/manager.h"
#include "daemon/proto/varlink.h"
#include "daemon/reload.h"
#include "daemon/retry.h"
#include "daemon/status.h"
#include "daemon/transitions.h"
#include "lib/util/cleanup.h"
#include "lib/util/fd.h"

#define CONTROL_BACKLOG 64

#define CANNOT_CUT "a connection was taken over from an nbdd that was killed, whose descriptors " \
	"are lost, and this kernel cannot end it (CONFIG_INET_DIAG_DESTROY, TCP alone): it is " \
	"replaced when it ends; to end it, restart the server"

void control_reply_error(struct varlink_call *call, const char *error, const char *member,
			const char *text)
{
	struct json_object *params = json_object_new_object();

	json_object_object_add(params, member, json_object_new_string(text));
	varlink_call_error(call, error, params);
}

void control_reply_no_device(struct varlink_call *call, const char *name)
{
	control_reply_error(call, CONTROL_ERROR_NO_SUCH_DEVICE, "device", name);
}

/* ---- calls that wait for a device -------------------------------------------------- */

bool control_add_waiter(struct varlink_call **waiters, struct varlink_call *call)
{
	for (size_t i = 0; i < DEVICE_WAITERS_MAX; i++)
		if (!waiters[i]) {
			waiters[i] = call;
			return true;
		}
	control_reply_error(call, CONTROL_ERROR_BUSY, "message",
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

void control_drop_waiter(struct varlink_call **waiters, struct varlink_call *call)
{
	for (size_t i = 0; i < DEVICE_WAITERS_MAX; i++)
		if (waiters[i] == call) {
			waiters[i] = NULL;
			varlink_call_drop(call);
			return;
		}
}

static void detacher_gone(struct varlink_call *call, void *userdata)
{
	struct device *d = userdata;

	control_drop_waiter(d->detachers, call);
}

void control_attach_done(struct device *d)
{
	struct varlink_call *call;

	while ((call = next_waiter(d->attachers)))
		control_reply_attached(call, d);
}

void control_attach_failed(struct device *d, const char *error)
{
	struct varlink_call *call;

	while ((call = next_waiter(d->attachers)))
		control_reply_error(call, error, "message", d->last_error);
}

void control_detach_done(struct device *d, int r)
{
	struct varlink_call *call;

	while ((call = next_waiter(d->detachers))) {
		if (r < 0)
			control_reply_error(call, CONTROL_ERROR_FAILED, "message", d->last_error);
		else
			varlink_call_reply(call, NULL);
	}
}

/* ---- Detach ------------------------------------------------------------------------ */

void control_detach_held(struct device *d, bool claimed)
{
	struct varlink_call *call;
	char path[32];

	snprintf(path, sizeof(path), "/dev/nbd%d", d->index);
	while ((call = next_waiter(d->detachers))) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "device", json_object_new_string(path));
		if (claimed)
			json_object_object_add(o, "claimed", json_object_new_boolean(true));
		varlink_call_error(call, CONTROL_ERROR_DEVICE_HELD, o);
	}
}

void control_detach_unknown(struct device *d, int r)
{
	device_set_error(d, "cannot find out whether the device is in use: %s (to detach it "
			 "takes --force then)", strerror(-r));
	control_detach_done(d, r);
}

struct device *control_param_device(struct varlink_call *call, struct json_object *params,
				    struct manager *m)
{
	const char *name = NULL;
	struct device *d;

	if (!varlink_param_string(call, params, "device", true, &name))
		return NULL;
	d = manager_find(m, name);
	if (!d)
		control_reply_no_device(call, name);
	return d;
}

static void method_detach(struct varlink_call *call, struct json_object *params,
			  void *userdata)
{
	struct device *d;
	bool force = false;

	if (!varlink_param_bool(call, params, "force", &force))
		return;
	d = control_param_device(call, params, userdata);
	if (!d || !control_add_waiter(d->detachers, call))
		return;
	varlink_call_set_gone(call, detacher_gone, d);
	detach_ask(d, force);
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
		/* Whoever watched it with an nbdd before this one learns how it ended. */
		if (varlink_call_wants_more(call) && manager_was_detached(m, name))
			varlink_call_reply(call, status_gone(false));
		else
			control_reply_no_device(call, name);
		return;
	}
	if (!varlink_call_wants_more(call))
		varlink_call_reply(call, status_reply(m, d));
	else if (status_watch(m, call, d ? d->name : NULL) < 0)
		control_reply_error(call, CONTROL_ERROR_BUSY, "message", "too many watch already");
}

static void method_metrics(struct varlink_call *call, struct json_object *params,
			   void *userdata)
{
	_cleanup_free_ char *text = NULL;
	struct json_object *reply;
	size_t len;

	if (metrics_text(userdata, &text, &len) < 0) {
		control_reply_error(call, CONTROL_ERROR_FAILED, "message", "out of memory");
		return;
	}
	reply = json_object_new_object();
	json_object_object_add(reply, "text", json_object_new_string_len(text, (int)len));
	varlink_call_reply(call, reply);
}

static void method_events(struct varlink_call *call, struct json_object *params,
			  void *userdata)
{
	const char *name = NULL;

	if (!varlink_param_string(call, params, "device", false, &name))
		return;
	if (!varlink_call_wants_more(call))
		varlink_call_error(call, VARLINK_EXPECTED_MORE, NULL);
	else if (news_follow(userdata, call, name) < 0)
		control_reply_error(call, CONTROL_ERROR_BUSY, "message",
				    "too many follow events already");
}

static void method_reconnect(struct varlink_call *call, struct json_object *params,
			     void *userdata)
{
	struct device *d = control_param_device(call, params, userdata);
	int r = 0;

	if (!d)
		return;
	if (d->state == STATE_MOVING) {
		control_reply_error(call, CONTROL_ERROR_BUSY, "message",
				    "the device is on its way to another server just now");
		return;
	}
	device_log(d, LOG_NOTICE, "reconnect asked for");
	d->ktls = (struct ktls_trust){};	/* the kernel may try its TLS again */
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE)
			r = MIN(r, link_cut(&d->links[i], "reconnect was asked for"));
	if (r < 0) {
		control_reply_error(call, CONTROL_ERROR_FAILED, "message", CANNOT_CUT);
		return;
	}
	if (device_is_out(d) || d->state == STATE_DEGRADED || d->state == STATE_CONNECTING)
		retry_now(d);
	varlink_call_reply(call, NULL);
}

static const struct varlink_method methods[] = {
	{ "Attach", true, control_method_attach },
	{ "Detach", true, method_detach },
	{ "Status", false, method_status },
	{ "Metrics", false, method_metrics },
	{ "Events", false, method_events },
	{ "Reconnect", true, method_reconnect },
	{ "Move", true, control_method_move },
	{ "Reload", true, control_method_reload, .own_user = true },	/* ExecReload= */
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
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	r = fd_bind_unix(fd, path, 0666);
	if (r >= 0 && listen(fd, CONTROL_BACKLOG) < 0)
		r = -errno;
	return r < 0 ? r : STEAL_FD(fd);
}

static size_t disposal_has_room(void *userdata)
{
	return disposal_room(userdata);
}

static void dispose(int fd, void *userdata)
{
	disposal_take(userdata, fd);
}

static void on_varlink_log(const char *text, void *userdata)
{
	log_warning("control: %s", text);
}

int control_open(struct manager *m, int fd)
{
	char path[4096];
	int r;

	snprintf(path, sizeof(path), "%s/" MANAGER_SOCKET, m->options.runtime_dir);
	if (fd < 0)
		fd = listen_on(path);
	if (fd < 0) {
		log_error("cannot listen on %s: %s", path, strerror(-fd));
		return fd;
	}
	r = disposal_new(m->event, m->sandbox, &m->disposal);
	if (r >= 0)
		r = varlink_server_new(m->event, fd, &interface, m, &m->server);
	if (r < 0) {
		log_error("cannot serve on %s: %s", path, strerror(-r));
		return r;
	}
	varlink_server_set_log(m->server, on_varlink_log, m);
	varlink_server_set_disposal(m->server, &(struct varlink_disposal){
		.max = DISPOSAL_SOCKETS_MAX, .room = disposal_has_room, .take = dispose,
		.userdata = m->disposal });
	return 0;
}
