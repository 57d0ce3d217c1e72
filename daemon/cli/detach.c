/* detach and reconnect. */
#include "daemon/cli/cli.h"

enum { OPTION_FORCE };

static int ignore_reply(struct json_object *params, void *userdata)
{
	return 0;
}

static int call_device(const struct cli *cli, const char *method, const char *device,
		       bool force)
{
	struct json_object *params = cli_must(json_object_new_object());

	json_object_object_add(params, "device", cli_must(json_object_new_string(device)));
	if (force)
		json_object_object_add(params, "force", json_object_new_boolean(true));
	return manager_call(cli, &(struct manager_request){
		.method = method, .params = params, .reply = ignore_reply });
}

int verb_detach(struct cli *cli, const struct cli_arguments *a)
{
	return call_device(cli, "Detach", a->words[0], a->options[OPTION_FORCE]);
}

int verb_reconnect(struct cli *cli, const struct cli_arguments *a)
{
	return call_device(cli, "Reconnect", a->words[0], false);
}
