#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

enum { OPTION_FORCE, OPTION_JSON };

static void add_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, cli_must(json_object_new_string(value)));
}

static int on_moved(struct json_object *reply, void *userdata)
{
	const struct cli *cli = userdata;
	char device[CLI_TEXT_MAX], to[CLI_TEXT_MAX], peer[CLI_TEXT_MAX], time[FORMAT_MAX];

	if (cli->json)
		cli_print_json(json_object_get(reply));
	else
		printf("%s: moved to %s (%s): %llu blocks compared, I/O waited %s\n",
		       member_text(device, reply, "device"), member_text(to, reply, "to"),
		       member_text(peer, reply, "peer"),
		       (unsigned long long)member_u64(reply, "compared"),
		       format_usec(time, member_u64(reply, "pause_usec")));
	cli_warnings(member(reply, "warnings"));
	return 0;
}

int verb_move(struct cli *cli, const struct cli_arguments *a)
{
	struct json_object *params;

	if (a->n_words > 1 && json_object_object_get_ex(a->keys, "uri", NULL))
		return cli_error(cli, CLI_USAGE, "move: the URI is given twice");
	if (a->n_words > 1)
		add_text(a->keys, "uri", a->words[1]);
	params = cli_must(json_object_new_object());
	add_text(params, "device", a->words[0]);
	json_object_object_add(params, "keys", json_object_get(a->keys));
	if (a->options[OPTION_FORCE])
		json_object_object_add(params, "force", json_object_new_boolean(true));
	return manager_call(cli, &(struct manager_request){
		.method = "Move", .params = params, .reply = on_moved, .userdata = cli });
}
