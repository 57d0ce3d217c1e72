/* events: what happens to devices, as it happens. */
#include <errno.h>
#include <inttypes.h>

#include "daemon/cli/cli.h"

enum { OPTION_JSON };

static void print_event(struct json_object *e)
{
	char device[CLI_TEXT_MAX], name[CLI_TEXT_MAX], event[CLI_TEXT_MAX];
	char message[CLI_TEXT_MAX], date[DATE_MAX];

	member_text(device, e, "device");
	printf("%s %s %s %s: %s\n", date_text(date, member_u64(e, "time")),
	       *device ? device : "-", member_text(name, e, "name"),
	       member_text(event, e, "event"), member_text(message, e, "message"));
}

/* One object a line.  The first reply only tells that it has begun. */
static int on_reply(struct json_object *params, void *userdata)
{
	const struct cli *cli = userdata;
	struct json_object *event = member(params, "event");
	uint64_t lost = member_u64(params, "lost");

	if (cli->json && (event || lost))
		cli_print_json_line(params);
	if (!cli->json && lost)
		printf("%" PRIu64 " events were lost here, for they were not read in time\n",
		       lost);
	if (!cli->json && json_object_is_type(event, json_type_object))
		print_event(event);
	return fflush(stdout) == EOF ? -EIO : 0;
}

int verb_events(struct cli *cli, const struct cli_arguments *a)
{
	struct json_object *params = NULL;

	if (a->n_words) {
		params = cli_must(json_object_new_object());
		json_object_object_add(params, "device",
				       cli_must(json_object_new_string(a->words[0])));
	}
	return manager_call(cli, &(struct manager_request){
		.method = "Events", .params = params, .more = true, .reply = on_reply,
		.userdata = cli });
}
