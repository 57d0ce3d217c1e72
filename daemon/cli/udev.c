/* udev: what a rule asks of a device.  It runs in udev's worker, for each event of each
 * device, and must not hold it up. */
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "lib/util/clock.h"
#include "netlink/nbdk.h"

#define PREFIX		"nbdd:"		/* nbdd makes identifiers `nbdd:NAME:RANDOM` */
#define ANSWER_USEC	USEC_PER_SEC
#define BACKEND_USEC	(5 * USEC_PER_MSEC)
#define BACKEND_TRIES	20

/* The kernel announces the device a moment before it makes the attribute `backend`. */
static int read_device(unsigned index, struct nbdk_info *ret)
{
	int r = nbdk_sysfs_read(index, ret);

	for (unsigned i = 0; r == 0 && ret->connected && !*ret->backend &&
	     i < BACKEND_TRIES; i++) {
		usleep(BACKEND_USEC);
		r = nbdk_sysfs_read(index, ret);
	}
	return r;
}

static bool no_report(const char *name, struct json_object *params, void *userdata)
{
	return true;
}

static int on_status(struct json_object *params, void *userdata)
{
	struct json_object *list = member(params, "devices");

	if (json_object_is_type(list, json_type_array) && json_object_array_length(list))
		member_text(userdata, json_object_array_get_idx(list, 0), "name");
	return 0;
}

/* A device with an identifier of its own is known to the daemon alone. */
static void ask_daemon(const struct cli *cli, const char *device,
		       char name[static CLI_TEXT_MAX])
{
	struct json_object *params = cli_must(json_object_new_object());

	json_object_object_add(params, "device", cli_must(json_object_new_string(device)));
	manager_call(cli, &(struct manager_request){
		.method = "Status", .params = params, .reply = on_status,
		.error = no_report, .quiet = true, .timeout_usec = ANSWER_USEC,
		.userdata = name });
}

/* The name in an identifier that nbdd made; a name may hold colons, too. */
static bool take_name(const char *backend, char name[static CLI_TEXT_MAX])
{
	const size_t prefix = strlen(PREFIX);
	const char *end = strrchr(backend, ':');

	if (strncmp(backend, PREFIX, prefix) != 0 || end < backend + prefix)
		return false;
	snprintf(name, CLI_TEXT_MAX, "%.*s", (int)(end - backend - prefix), backend + prefix);
	return true;
}

/* A device that is not ours has no name, which is no error. */
int verb_udev(struct cli *cli, const struct cli_arguments *a)
{
	char name[CLI_TEXT_MAX] = "";
	struct nbdk_info info;
	unsigned index;

	if (conf_parse_device(a->words[0], &index) < 0)
		return cli_error(cli, CLI_USAGE, "udev: nbdN is expected");
	if (read_device(index, &info) < 0 || !info.connected)
		return CLI_NO_DEVICE;
	if (!take_name(info.backend, name) && *info.backend)
		ask_daemon(cli, a->words[0], name);
	/* It becomes the name of a link: only what can be a device's. */
	if (conf_check_name(name) == 0)
		printf("NBDD_NAME=%s\n", name);
	return CLI_OK;
}
