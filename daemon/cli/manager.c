/* Calling the daemon, and what its errors mean to a person. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "daemon/cli/holders.h"
#include "daemon/cli/start.h"
#include "daemon/proto/manager.h"
#include "daemon/proto/varlink.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"
#include "netlink/nbdk.h"

#define AGAIN_PAUSE_NSEC	(50 * 1000 * 1000)

struct exchange {
	const struct cli *cli;
	const struct manager_request *q;
	int status;
	bool again;			/* a daemon before this one has ended meanwhile */
	bool ended;			/* by its tick */
	uint64_t deadline;		/* until which the next one is waited for; 0: no need */
};

static void explain_problems(struct json_object *params)
{
	char text[CLI_TEXT_MAX];

	fprintf(stderr, "  %s\n", member_list(text, params, "problems", "\n  "));
}

static void explain_held(struct json_object *params)
{
	if (!holders_print(params))
		fputs("  by whom is not to be seen: they have just ended, or nbdctl may not look "
		      "into every\n  process here (it takes root, outside of containers)\n",
		      stderr);
	fputs("End this use and detach again; or, if its loss does not matter, detach with "
	      "--force:\nthe users then get I/O errors, and what they have not yet written "
	      "is lost.\n", stderr);
}

/* A row for each error: the sentence takes the parameter that is named. */
static const struct manager_error {
	const char *name;
	enum cli_status status;
	const char *before, *parameter, *after;
	void (*explain)(struct json_object *params);
} errors[] = {
	{ MANAGER_ERROR("InvalidKey"), CLI_USAGE, "", "message", "" },
	{ MANAGER_ERROR("NoSuchDevice"), CLI_NO_DEVICE, "there is no device `", "device",
	  "`, attached or configured (see `nbdctl status`, `nbdctl check`)" },
	{ MANAGER_ERROR("Busy"), CLI_FAILED, "", "message", "" },
	{ MANAGER_ERROR("ConnectFailed"), CLI_FAILED, "", "message", "" },
	{ MANAGER_ERROR("DeviceHeld"), CLI_HELD, "", "device",
	  " is in use and stays attached:", explain_held },
	{ MANAGER_ERROR("NotTheSame"), CLI_FAILED, "the device stays where it is: ", "message",
	  "" },
	{ MANAGER_ERROR("BadConfiguration"), CLI_FAILED,
	  "nothing has been changed, for the files have errors:", NULL, "", explain_problems },
	{ MANAGER_ERROR("Failed"), CLI_FAILED, "", "message", "" },
	{ VARLINK_PERMISSION_DENIED, CLI_PERMISSION, "only root may do this", NULL, "" },
	{ VARLINK_INVALID_PARAMETER, CLI_FAILED, "nbdd does not take the parameter `",
	  "parameter", "`: is it of another version?" },
	{ "org.varlink.service.MethodNotFound", CLI_FAILED, "nbdd does not know the method `",
	  "method", "`: it is of another version" },
};

static int report_error(const struct cli *cli, const char *name, struct json_object *params)
{
	char text[CLI_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		const struct manager_error *e = &errors[i];

		if (strcmp(e->name, name) != 0)
			continue;
		cli_error(cli, e->status, "%s%s%s", e->before, e->parameter ?
			  member_text(text, params, e->parameter) : "", e->after);
		if (e->explain)
			e->explain(params);
		return (int)e->status;
	}
	return cli_error(cli, CLI_FAILED, "nbdd answers with the error %s",
			 escape_text(text, sizeof(text), name, strlen(name)));
}

/* What was asked for may have been done before the daemon ended; or the next one has left the
 * device alone, which the kernel still has then. */
static bool may_be_detached(const struct exchange *x)
{
	char device[CLI_TEXT_MAX];
	struct nbdk_info info;
	unsigned index;

	return conf_parse_device(member_text(device, x->q->params, "device"), &index) < 0 ||
	       nbdk_sysfs_connection(index, &info) < 0 || !info.connected;
}

static int on_reply(struct json_object *params, const char *error, void *userdata)
{
	struct exchange *x = userdata;

	x->deadline = 0;
	if (error && x->again && strcmp(x->q->method, "Detach") == 0 &&
	    strcmp(error, MANAGER_ERROR("NoSuchDevice")) == 0 && may_be_detached(x))
		return 0;
	if (error) {
		if (strcmp(error, MANAGER_ERROR("DeviceHeld")) == 0)
			holders_find(params);
		if (x->q->done)
			x->q->done(x->q->userdata);
		x->status = CLI_FAILED;
		if (!x->q->error || !x->q->error(error, params, x->q->userdata))
			x->status = report_error(x->cli, error, params);
		return 0;
	}
	return x->q->reply(params, x->q->userdata);
}

static int on_tick(void *userdata)
{
	struct exchange *x = userdata;

	return x->q->tick(x->q->userdata);
}

static int report_connect(const struct cli *cli, int r, const char *path)
{
	switch (-r) {
	case ENOENT:
		return cli_error(cli, CLI_NO_DAEMON, "nbdd is not running (no socket %s): "
				 "start it with `systemctl start nbdd`", path);
	case ECONNREFUSED:
		return cli_error(cli, CLI_NO_DAEMON, "nbdd is not running (nobody listens on "
				 "%s): start it with `systemctl start nbdd`", path);
	case EACCES:
	case EPERM:
		return cli_error(cli, CLI_PERMISSION, "%s: %s", path, strerror(-r));
	default:
		return cli_error(cli, CLI_NO_DAEMON, "cannot connect to nbdd on %s: %s",
				 path, strerror(-r));
	}
}

static int report_call(const struct cli *cli, int r)
{
	switch (-r) {
	case ECONNRESET:
		return cli_error(cli, CLI_NO_DAEMON, "nbdd has closed the connection: it was "
				 "stopped or restarted (see `journalctl -u nbdd`)");
	case EPROTO:
	case EMSGSIZE:
		return cli_error(cli, CLI_FAILED, "nbdd's answer is not understood: is it of "
				 "another version?");
	default:
		return cli_error(cli, CLI_FAILED, "cannot talk to nbdd: %s", strerror(-r));
	}
}

/* To ask these once more does no harm. */
static bool repeatable(const char *method)
{
	static const char *const methods[] = { "Attach", "Detach", "Status", "Metrics", "Events" };

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (strcmp(methods[i], method) == 0)
			return true;
	return false;
}

/* 0, or the -errno of the connection; *RET_MET: there was one. */
static int attempt(struct exchange *x, const char *path, bool *ret_met)
{
	_cleanup_free_ char *method = NULL;
	struct varlink_client *client;
	int r = varlink_client_connect(path, &client);

	*ret_met |= r >= 0;
	if (r < 0)
		return r;
	if (asprintf(&method, MANAGER_INTERFACE ".%s", x->q->method) < 0)
		method = NULL;
	r = varlink_client_call(client, &(struct varlink_request){
		.method = cli_must(method), .params = json_object_get(x->q->params),
		.more = x->q->more, .reply = on_reply,
		.timeout_usec = x->q->timeout_usec ? x->q->timeout_usec : USEC_INFINITY,
		.tick = x->q->tick ? on_tick : NULL,
		.tick_usec = x->q->tick_usec ? x->q->tick_usec : USEC_PER_SEC,
		.userdata = x,
	});
	varlink_client_close(client);
	return r;
}

/* A daemon that ends in the middle of a call is being restarted or replaced, as a rule: the
 * next one is asked. */
static bool ask_again(struct exchange *x, int r)
{
	const struct timespec pause = { .tv_nsec = AGAIN_PAUSE_NSEC };

	if (!repeatable(x->q->method) ||
	    (r != -ECONNRESET && r != -ECONNREFUSED && r != -ENOENT))
		return false;
	if (!x->deadline)
		x->deadline = now_usec() + CLI_AGAIN_USEC;
	x->again = true;
	/* What is there by now may be what this call has asked for. */
	if (strcmp(x->q->method, "Attach") == 0)
		json_object_object_del(x->q->params, "fresh");
	x->ended = x->q->tick && x->q->tick(x->q->userdata) == -ECANCELED;
	return !x->ended && nanosleep(&pause, NULL) == 0 && now_usec() < x->deadline;
}

static int call(struct exchange *x, const char *path)
{
	bool met = false;
	int r;

	do
		r = attempt(x, path, &met);
	while (r < 0 && met && ask_again(x, r));
	json_object_put(x->q->params);
	if (r >= 0 || r == -ECANCELED || x->ended)
		return x->status;
	if (x->q->done)
		x->q->done(x->q->userdata);
	if (x->q->quiet)
		return CLI_FAILED;
	if (!met)
		return report_connect(x->cli, r, path);
	return report_call(x->cli, r == -ECONNREFUSED || r == -ENOENT ? -ECONNRESET : r);
}

int manager_call(const struct cli *cli, const struct manager_request *q)
{
	struct exchange x = { .cli = cli, .q = q, .status = CLI_OK };
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/" MANAGER_SOCKET, cli->runtime_dir) < 0)
		path = NULL;
	return call(&x, cli_must(path));
}
