#include "daemon/cli/follow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/proto/manager.h"
#include "daemon/proto/varlink.h"
#include "lib/util/cleanup.h"

#define TICK_USEC	(250 * USEC_PER_MSEC)	/* a signal waits so long */
#define AGAIN_USEC	USEC_PER_SEC		/* without a daemon, or too many watching */

struct follow {
	const sigset_t *signals;
	void (*changed)(struct json_object *device);
	bool gone, lost;
	bool told;			/* to end */
};

void follow_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGHUP);
	sigprocmask(SIG_BLOCK, ret, NULL);
}

bool follow_told_to_end(const sigset_t *signals, uint64_t usec)
{
	struct timespec t = { (time_t)(usec / USEC_PER_SEC),
			      (long)(usec % USEC_PER_SEC * 1000) };

	return sigtimedwait(signals, NULL, &t) > 0;
}

/* Not 0 ends the call. */
static int on_reply(struct json_object *params, const char *error, void *userdata)
{
	struct follow *f = userdata;
	struct json_object *list = member(params, "devices");
	size_t n = json_object_is_type(list, json_type_array) ?
		json_object_array_length(list) : 0;

	if (error) {
		f->gone = strcmp(error, MANAGER_ERROR("NoSuchDevice")) == 0;
		f->lost = f->gone;	/* it went while nobody looked */
		return f->gone;
	}
	if (n && f->changed)
		f->changed(json_object_array_get_idx(list, 0));
	f->gone = !n;
	f->lost = member_bool(params, "lost");
	return f->gone;
}

static int on_tick(void *userdata)
{
	struct follow *f = userdata;

	f->told = follow_told_to_end(f->signals, 0);
	return f->told ? -ECANCELED : 0;
}

/* Until the connection ends, for whatever reason. */
static void follow_once(struct follow *f, const char *path, const char *device)
{
	struct json_object *params;
	struct varlink_client *client;

	if (varlink_client_connect(path, &client) < 0)
		return;
	params = cli_must(json_object_new_object());
	json_object_object_add(params, "device", cli_must(json_object_new_string(device)));
	(void)varlink_client_call(client, &(struct varlink_request){
		.method = MANAGER_INTERFACE ".Status", .params = params, .more = true,
		.timeout_usec = USEC_INFINITY, .reply = on_reply,
		.tick = on_tick, .tick_usec = TICK_USEC, .userdata = f });
	varlink_client_close(client);
}

enum follow_end follow_device(const struct cli *cli, const char *device,
			      const sigset_t *signals,
			      void (*changed)(struct json_object *device))
{
	struct follow f = { .signals = signals, .changed = changed };
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/" MANAGER_SOCKET, cli->runtime_dir) < 0)
		path = NULL;
	cli_must(path);
	for (;;) {
		follow_once(&f, path, device);
		if (f.told || (!f.gone && follow_told_to_end(signals, AGAIN_USEC)))
			return FOLLOW_SIGNAL;
		if (f.gone)
			return f.lost ? FOLLOW_LOST : FOLLOW_DETACHED;
	}
}
