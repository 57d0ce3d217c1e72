/* hold: a device as a process, for nbd@.service.  It lives as long as the device is
 * attached; when it is told to end it detaches the device. */
#include <string.h>
#include <systemd/sd-daemon.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "daemon/cli/follow.h"
#include "daemon/cli/start.h"
#include "daemon/proto/manager.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/disks.h"

#define RETRY_FIRST_USEC	(500 * USEC_PER_MSEC)
#define RETRY_MAX_USEC		(5 * USEC_PER_SEC)
#define RESTART_USEC		(10 * USEC_PER_SEC)
#define HELD_USEC		(250 * USEC_PER_MSEC)	/* until it is looked again */

struct hold {
	struct cli *cli;
	const char *what;		/* name or device, as given */
	char device[CLI_TEXT_MAX];	/* /dev/nbdN */
	sigset_t signals;
	bool away;			/* the server, or the daemon: try again */
	bool gone, held, held_by_root;
	bool told;			/* what went wrong, to the log */
};

/* ---- attaching --------------------------------------------------------------------- */

static int on_attached(struct json_object *params, void *userdata)
{
	struct hold *h = userdata;

	member_text(h->device, params, "device");
	return 0;
}

/* Only what can come right by itself is tried again; it is logged once. */
static bool on_attach_error(const char *error, struct json_object *params, void *userdata)
{
	struct hold *h = userdata;
	char text[CLI_TEXT_MAX];
	bool quiet = h->told;

	h->away = strcmp(error, MANAGER_ERROR("ConnectFailed")) == 0;
	if (h->away)
		sd_notifyf(0, "STATUS=Not attached yet: %s",
			   member_text(text, params, "message"));
	h->told = h->away;
	return h->away && quiet;
}

static int attach_once(struct hold *h)
{
	struct json_object *params = cli_must(json_object_new_object());
	unsigned index;

	json_object_object_add(params, conf_parse_device(h->what, &index) == 0 ? "device" :
			       "name", cli_must(json_object_new_string(h->what)));
	h->away = false;
	return manager_call(h->cli, &(struct manager_request){
		.method = "Attach", .params = params, .reply = on_attached,
		.error = on_attach_error, .userdata = h });
}

/* systemd ends it when TimeoutStartSec= is over. */
static int attach(struct hold *h)
{
	uint64_t pause = RETRY_FIRST_USEC;
	int r;

	for (;;) {
		r = attach_once(h);
		if (r == CLI_OK || (!h->away && r != CLI_NO_DAEMON))
			return r;
		if (follow_told_to_end(&h->signals, pause))
			return CLI_FAILED;
		pause = MIN(2 * pause, RETRY_MAX_USEC);
	}
}

/* ---- while it is attached ---------------------------------------------------------- */

static void on_changed(struct json_object *device)
{
	char node[CLI_TEXT_MAX], uri[CLI_TEXT_MAX], trouble[CLI_TEXT_MAX];

	member_text(node, device, "device");
	member_text(uri, device, "uri");
	if (*device_trouble(trouble, device, 0))
		sd_notifyf(0, "STATUS=%s: %s", node, trouble);
	else
		sd_notifyf(0, "STATUS=%s is attached to %s", node, uri);
}

/* ---- the end ----------------------------------------------------------------------- */

static void find_device(const char *disk, void *userdata)
{
	struct hold *h = userdata;

	h->held_by_root |= strcmp(disk, h->device + strlen("/dev/")) == 0;
}

/* Is what the system runs from on it, whatever is between?  Nothing that still runs could do
 * without. */
static void find_root(struct hold *h)
{
	disks_of_mount("/sys", "/", find_device, h);
	disks_of_mount("/sys", "/usr", find_device, h);
}

static bool on_detach_error(const char *error, struct json_object *params, void *userdata)
{
	struct hold *h = userdata;
	bool quiet = h->told;

	h->gone = strcmp(error, MANAGER_ERROR("NoSuchDevice")) == 0;
	h->held = strcmp(error, MANAGER_ERROR("DeviceHeld")) == 0;
	if (h->held)
		find_root(h);
	h->told = h->held;
	return h->gone || (h->held && quiet);
}

static int on_detached(struct json_object *params, void *userdata)
{
	return 0;
}

/* Whoever uses it is being stopped, too: wait for them, as long as systemd does.  An nbdd that
 * is just being restarted is soon back; one that was stopped for good is not waited for. */
static int detach(struct hold *h)
{
	int r;

	sd_notify(0, "STOPPING=1");
	h->told = false;
	do {
		struct json_object *params = cli_must(json_object_new_object());

		h->held = h->held_by_root = false;
		(void)cli_await_daemon(h->cli, now_usec() + RESTART_USEC);
		json_object_object_add(params, "device",
				       cli_must(json_object_new_string(h->device)));
		r = manager_call(h->cli, &(struct manager_request){
			.method = "Detach", .params = params, .reply = on_detached,
			.error = on_detach_error, .userdata = h });
		if (h->held_by_root || h->gone)
			return CLI_OK;
	} while (h->held && !follow_told_to_end(&h->signals, HELD_USEC));
	return h->held ? CLI_HELD : r;
}

int verb_hold(struct cli *cli, const struct cli_arguments *a)
{
	struct hold h = { .cli = cli, .what = a->words[0] };
	int r;

	follow_signals(&h.signals);
	r = attach(&h);
	if (r != CLI_OK)
		return r;
	printf("%s\n", h.device);
	fflush(stdout);
	sd_notify(0, "READY=1");
	switch (follow_device(cli, h.device, &h.signals, on_changed)) {
	case FOLLOW_DETACHED:
		return CLI_OK;
	case FOLLOW_LOST:
		return cli_error(cli, CLI_LOST, "%s is no longer attached, and nobody asked "
				 "nbdd for that (see `journalctl -u nbdd`)", h.device);
	case FOLLOW_SIGNAL:
		break;
	}
	return detach(&h);
}
