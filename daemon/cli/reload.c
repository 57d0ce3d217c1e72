#include <stdio.h>
#include <string.h>

#include "daemon/cli/cli.h"

struct report {
	const struct cli *cli;
	int status;
};

/* What was done, for people; those that are BAD were not done. */
static const struct {
	const char *action, *text;
	bool bad;
} actions[] = {
	{ "unchanged", "nothing to change" },
	{ "changed", "changed" },
	{ "moved", "moved to new connections" },
	{ "not-moved", "stays with its server", true },
	{ "attaching", "being attached" },
	{ "unconfigured", "left alone" },
	{ "given-up", "given up" },
	{ "busy", "left as it is", true },
	{ "failed", "failed", true },
};

static bool is_bad(const char *action)
{
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (strcmp(actions[i].action, action) == 0)
			return actions[i].bad;
	return false;
}

static const char *in_words(const char *action)
{
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (strcmp(actions[i].action, action) == 0)
			return actions[i].text;
	return action;
}

static void print_row(struct json_object *row)
{
	char name[CLI_TEXT_MAX], text[CLI_TEXT_MAX];

	printf("%s: ", member_text(name, row, "name"));
	printf("%s", in_words(member_text(text, row, "action")));
	if (*member_list(text, row, "keys", ", "))
		printf(" (%s)", text);
	if (*member_text(text, row, "message"))
		printf(": %s", text);
	if (*member_list(text, row, "fixed", ", "))
		printf("; only a detach and attach would change %s", text);
	putchar('\n');
}

static int on_reply(struct json_object *params, void *userdata)
{
	struct json_object *list = member(params, "devices");
	struct report *r = userdata;
	size_t n = json_object_is_type(list, json_type_array) ?
		json_object_array_length(list) : 0;

	if (r->cli->json)
		cli_print_json(json_object_get(params));
	else if (!n)
		puts("no device is configured");
	for (size_t i = 0; i < n; i++) {
		struct json_object *row = json_object_array_get_idx(list, i);
		char action[CLI_TEXT_MAX];

		if (is_bad(member_text(action, row, "action")))
			r->status = CLI_FAILED;
		if (!r->cli->json)
			print_row(row);
	}
	return 0;
}

int verb_reload(struct cli *cli, const struct cli_arguments *a)
{
	struct report report = { .cli = cli, .status = CLI_OK };
	int r = manager_call(cli, &(struct manager_request){
		.method = "Reload", .reply = on_reply, .userdata = &report });

	return r == CLI_OK ? report.status : r;
}
