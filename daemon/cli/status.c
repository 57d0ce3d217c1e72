#include "daemon/cli/status.h"

enum { OPTION_JSON, OPTION_WATCH, OPTION_PROMETHEUS, OPTION_OUTPUT };

struct fetched {
	const struct cli *cli;
	struct json_object *devices;
};

static int on_reply(struct json_object *params, void *userdata)
{
	struct fetched *f = userdata;

	if (!f->cli->json)
		cli_warnings(member(params, "warnings"));
	f->devices = json_object_get(member(params, "devices"));
	return 0;
}

static int fetch(const struct cli *cli, struct json_object *params,
		 struct json_object **ret_devices)
{
	struct fetched f = { .cli = cli };
	int r = manager_call(cli, &(struct manager_request){
		.method = "Status", .params = params, .reply = on_reply,
		.userdata = &f });

	if (r == CLI_OK && !json_object_is_type(f.devices, json_type_array))
		r = cli_error(cli, CLI_FAILED, "nbdd's answer is not understood: is it of "
			      "another version?");
	if (r != CLI_OK)
		json_object_put(f.devices);
	else
		*ret_devices = f.devices;
	return r;
}

static void print_devices(struct json_object *devices, bool detail)
{
	bool colour = terminal_colour(stdout);
	unsigned width, lines;

	terminal_size(stdout, &width, &lines);
	if (!json_object_array_length(devices))
		puts("No devices are attached.");
	else if (detail)
		show_device(stdout, json_object_array_get_idx(devices, 0), colour, 0);
	else
		show_devices(stdout, devices, width, colour, 0);
}

/* Does what A asks for make sense together? */
static int check_options(const struct cli *cli, const struct cli_arguments *a)
{
	if (!!a->options[OPTION_JSON] + !!a->options[OPTION_WATCH] +
	    !!a->options[OPTION_PROMETHEUS] > 1)
		return cli_error(cli, CLI_USAGE, "status: --json, --watch and --prometheus "
				 "exclude each other");
	if (a->options[OPTION_PROMETHEUS] && a->n_words)
		return cli_error(cli, CLI_USAGE, "status: --prometheus is about all devices");
	if (a->options[OPTION_OUTPUT] && !a->options[OPTION_PROMETHEUS])
		return cli_error(cli, CLI_USAGE, "status: --output goes with --prometheus");
	return CLI_OK;
}

int verb_status(struct cli *cli, const struct cli_arguments *a)
{
	struct json_object *params = NULL, *devices;
	int r = check_options(cli, a);

	if (r != CLI_OK)
		return r;
	if (a->options[OPTION_PROMETHEUS])
		return cli_metrics(cli, a->options[OPTION_OUTPUT]);
	if (a->n_words) {
		params = cli_must(json_object_new_object());
		json_object_object_add(params, "device",
				       cli_must(json_object_new_string(a->words[0])));
	}
	if (a->options[OPTION_WATCH])
		return cli_watch(cli, params, a->n_words);
	r = fetch(cli, params, &devices);
	if (r != CLI_OK)
		return r;
	if (cli->json) {
		cli_print_json(devices);
		return CLI_OK;
	}
	print_devices(devices, a->n_words);
	json_object_put(devices);
	return CLI_OK;
}
