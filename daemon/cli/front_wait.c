/* nbd-client -nofork: stay as long as the device is attached. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "daemon/cli/front.h"
#include "daemon/proto/manager.h"
#include "daemon/proto/varlink.h"
#include "lib/util/cleanup.h"

enum { GONE = 1 };

static int on_status(struct json_object *params, const char *error, void *userdata)
{
	struct json_object *list = member(params, "devices");

	if (error)
		return GONE;
	return json_object_is_type(list, json_type_array) &&
	       json_object_array_length(list) == 0 ? GONE : 0;
}

/* The signals are blocked: they are looked for between messages. */
static int on_tick(void *userdata)
{
	return sigtimedwait(userdata, NULL, &(struct timespec){}) > 0 ? -EINTR : 0;
}

static int watch(const struct front *f, const char *device, sigset_t *signals)
{
	_cleanup_free_ char *path = NULL;
	struct json_object *params = cli_must(json_object_new_object());
	struct varlink_client *client;
	int r;

	json_object_object_add(params, "device", cli_must(json_object_new_string(device)));
	if (asprintf(&path, "%s/" MANAGER_SOCKET, f->cli.runtime_dir) < 0)
		path = NULL;
	r = varlink_client_connect(cli_must(path), &client);
	if (r < 0) {
		json_object_put(params);
		return r;
	}
	r = varlink_client_call(client, &(struct varlink_request){
		.method = MANAGER_INTERFACE ".Status", .params = params, .more = true,
		.timeout_usec = USEC_INFINITY, .reply = on_status, .tick = on_tick,
		.tick_usec = USEC_PER_SEC / 4, .userdata = signals });
	varlink_client_close(client);
	return r;
}

/* The daemon may be restarted meanwhile; the device stays. */
int front_wait(const struct front *f, const char *device)
{
	struct front end = { .cli = f->cli, .devices = &device, .n_devices = 1 };
	sigset_t signals;
	int r;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	do {
		r = watch(f, device, &signals);
		if (r < 0 && r != -EINTR && sigtimedwait(&signals, NULL,
				&(struct timespec){ .tv_sec = 1 }) > 0)
			r = -EINTR;
	} while (r != GONE && r != -EINTR);
	return r == GONE ? 0 : front_disconnect(&end);
}
