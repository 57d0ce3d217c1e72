#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"

enum { OPTION_DEVICE, OPTION_NAME };

struct attach {
	const char *what;		/* the word that was given */
	uint64_t since;
	bool progress;			/* there is a line of progress on the terminal */
	struct json_object *reply;
};

static bool is_uri(const char *word)
{
	return strstr(word, "://");
}

static int add_text(struct json_object *o, const char *key, const char *value)
{
	return json_object_object_add(o, key, cli_must(json_object_new_string(value)));
}

/* Put the word where it belongs: a URI, a device, or a name. */
static int place_word(const struct cli *cli, const struct cli_arguments *a,
		      struct json_object *params)
{
	const char *word = a->words[0], *key = "name";
	char text[256];
	unsigned index;

	escape_text(text, sizeof(text), word, strlen(word));
	if (is_uri(word)) {
		if (json_object_object_get_ex(a->keys, "uri", NULL))
			return cli_error(cli, CLI_USAGE, "attach: the URI is given twice");
		return add_text(a->keys, "uri", word);
	}
	if (conf_parse_device(word, &index) == 0)
		key = "device";
	else if (conf_check_name(word) < 0)
		return cli_error(cli, CLI_USAGE, "attach: `%s` is neither a URI (nbd://...) "
				 "nor a name (letters, digits, and ._@:-) nor a device "
				 "(/dev/nbdN)", text);
	if (json_object_object_get_ex(params, key, NULL))
		return cli_error(cli, CLI_USAGE, "attach: the %s is given twice: `%s` and "
				 "--%s", key, text, key);
	return add_text(params, key, word);
}

/* The keys are checked here, too, so that a mistake is known at once. */
static int check_keys(const struct cli *cli, struct json_object *keys)
{
	struct device_keys k;
	char error[CONF_ERROR_MAX];
	int r = 0;

	device_keys_init(&k);
	json_object_object_foreach(keys, key, value)
		if (r == 0)
			r = device_keys_set(&k, key, json_object_get_string(value), error);
	if (r == 0 && json_object_object_length(keys))
		r = device_keys_check(&k, error);
	device_keys_deinit(&k);
	return r < 0 ? cli_error(cli, CLI_USAGE, "attach: %s", error) : CLI_OK;
}

static bool has_server(const struct cli_arguments *a)
{
	return json_object_object_get_ex(a->keys, "uri", NULL) ||
	       json_object_object_get_ex(a->keys, "addresses", NULL);
}

static int build_params(const struct cli *cli, const struct cli_arguments *a,
			struct json_object *params)
{
	const char *device = a->options[OPTION_DEVICE], *name = a->options[OPTION_NAME];
	unsigned index;
	int r;

	if (device && conf_parse_device(device, &index) < 0)
		return cli_error(cli, CLI_USAGE, "attach: --device must be /dev/nbdN");
	if (name && conf_check_name(name) < 0)
		return cli_error(cli, CLI_USAGE, "attach: --name must be of letters, digits "
				 "and ._@:-, at most %d of them", CONF_NAME_MAX);
	if (device)
		add_text(params, "device", device);
	if (name)
		add_text(params, "name", name);
	if (!a->n_words && !has_server(a))
		return cli_error(cli, CLI_USAGE, "attach: what? Give a URI, the name of a "
				 "configured device, or --addresses=SERVER[,...]");
	r = a->n_words ? place_word(cli, a, params) : CLI_OK;
	if (r == CLI_OK && json_object_object_length(a->keys))
		json_object_object_add(params, "keys", json_object_get(a->keys));
	if (r == CLI_OK && has_server(a))
		r = check_keys(cli, a->keys);
	return r;
}

static int on_tick(void *userdata)
{
	struct attach *at = userdata;
	char text[64], time[FORMAT_MAX];

	at->progress = true;
	fprintf(stderr, "\r\033[Kattaching %s: %s ...",
		escape_text(text, sizeof(text), at->what, strlen(at->what)),
		format_usec(time, usec_sub(now_usec(), at->since)));
	return 0;
}

static void on_done(void *userdata)
{
	struct attach *at = userdata;

	if (at->progress)
		fputs("\r\033[K", stderr);
	at->progress = false;
}

static int on_reply(struct json_object *params, void *userdata)
{
	struct attach *at = userdata;

	at->reply = json_object_get(params);
	return 0;
}

static void print_result(struct json_object *reply)
{
	char text[CLI_TEXT_MAX];

	puts(member_text(text, reply, "device"));
	cli_warnings(member(reply, "warnings"));
}

int verb_attach(struct cli *cli, const struct cli_arguments *a)
{
	struct attach at = { .what = a->n_words ? a->words[0] : "the device", .since = now_usec() };
	struct json_object *params = cli_must(json_object_new_object());
	int r = build_params(cli, a, params);

	if (r != CLI_OK) {
		json_object_put(params);
		return r;
	}
	r = manager_call(cli, &(struct manager_request){
		.method = "Attach", .params = params, .reply = on_reply, .userdata = &at,
		.tick = isatty(STDERR_FILENO) ? on_tick : NULL, .done = on_done,
	});
	on_done(&at);
	if (r == CLI_OK && at.reply)
		print_result(at.reply);
	json_object_put(at.reply);
	return r;
}
