/* The options and words after a verb. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"

struct parser {
	struct cli *cli;
	const struct cli_verb *verb;
	char **argv;			/* what is still to be parsed */
	struct cli_arguments *out;
	struct device_keys keys;	/* to check the values of keys */
};

/* One `--NAME[=VALUE]`. */
struct given {
	const char *name;		/* up to the `=` */
	const char *value;		/* what follows it, or NULL */
};

static int usage(const struct parser *p, const char *what, const char *of)
{
	char text[256];

	return cli_error(p->cli, CLI_USAGE, "%s: %s `%s` (see `nbdctl %s --help`)",
			 p->verb->name, what, escape_text(text, sizeof(text), of, strlen(of)),
			 p->verb->name);
}

static const struct cli_option *find_option(const struct cli_verb *verb, const char *name)
{
	for (size_t i = 0; i < CLI_OPTIONS_MAX && verb->options[i].name; i++)
		if (strcmp(verb->options[i].name, name) == 0)
			return &verb->options[i];
	return NULL;
}

/* The value of an option that must have one may also be the next argument. */
static const char *take_value(struct parser *p, const struct given *g)
{
	if (g->value || !*p->argv)
		return g->value;
	return *p->argv++;
}

static int take_option(struct parser *p, const struct cli_option *o, const struct given *g)
{
	const char *value = "";

	if (!o->value && g->value)
		return usage(p, "there is no value for", g->name);
	if (o->value && !(value = take_value(p, g)))
		return usage(p, "a value is missing after", g->name);
	p->out->options[o - p->verb->options] = value;
	return CLI_OK;
}

/* What a key without a value stands for; NULL: its value is the next argument. */
static const char *value_of_flag(const char *name)
{
	const char *value = NULL;
	const struct conf_key *key = conf_key_find(name, &value);

	if (!key)
		return "";
	return value ? value : key->type == CONF_BOOL ? "yes" : !*key->name ? "" : NULL;
}

static int take_key(struct parser *p, const struct given *g)
{
	const char *value = g->value ? g->value : value_of_flag(g->name);
	const struct conf_key *key = conf_key_find(g->name, &(const char *){ NULL });
	char error[CONF_ERROR_MAX];

	if (!value && !(value = take_value(p, g)))
		return usage(p, "a value is missing after", g->name);
	if (device_keys_set(&p->keys, g->name, key && !*key->name ? NULL : value, error) < 0)
		return cli_error(p->cli, CLI_USAGE, "%s: %s", p->verb->name, error);
	if (key && *key->name)
		json_object_object_add(p->out->keys, key->name,
				       cli_must(json_object_new_string(value)));
	return CLI_OK;
}

static bool takes_key(const struct cli_verb *verb, const char *name)
{
	const struct conf_key *key = conf_key_find(name, &(const char *){ NULL });

	/* What is no key at all is explained by those verbs that take all of them. */
	if (!verb->keys || !*verb->keys)
		return verb->keys;
	return key && strncmp(key->name, verb->keys, strlen(verb->keys)) == 0;
}

static int take_dashed(struct parser *p, const struct given *g)
{
	const struct cli_option *o = find_option(p->verb, g->name);

	if (o)
		return take_option(p, o, g);
	if (strcmp(g->name, "help") == 0 && !g->value) {
		p->out->help = true;
		return CLI_OK;
	}
	if (strcmp(g->name, "runtime-dir") == 0) {
		p->cli->runtime_dir = take_value(p, g);
		return p->cli->runtime_dir ? CLI_OK :
			usage(p, "a value is missing after", g->name);
	}
	return takes_key(p->verb, g->name) ? take_key(p, g)
					   : usage(p, "there is no option", g->name);
}

static int take_word(struct parser *p, const char *word)
{
	if (p->out->n_words == p->verb->max_words)
		return usage(p, "one argument too many:", word);
	p->out->words[p->out->n_words++] = word;
	return CLI_OK;
}

static int take_argument(struct parser *p, const char *text, bool *only_words)
{
	_cleanup_free_ char *name = NULL;
	const char *equals = strchr(text, '=');

	if (*only_words || text[0] != '-' || !text[1])
		return take_word(p, text);
	if (strcmp(text, "--") == 0) {
		*only_words = true;
		return CLI_OK;
	}
	if (strcmp(text, "-h") == 0)
		text = "--help";
	if (text[1] != '-')
		return usage(p, "there is no option", text);
	name = cli_must(equals ? strndup(text + 2, (size_t)(equals - text - 2)) :
			strdup(text + 2));
	return take_dashed(p, &(struct given){ name, equals ? equals + 1 : NULL });
}

/* `--json` counts for errors in what stands before it, too. */
static void find_json(struct parser *p)
{
	for (char **a = p->argv; *a && strcmp(*a, "--") != 0; a++)
		if (strcmp(*a, "--json") == 0 && find_option(p->verb, "json"))
			p->cli->json = true;
}

int cli_parse(struct cli *cli, const struct cli_verb *verb, char **argv,
	      struct cli_arguments *ret)
{
	struct parser p = { .cli = cli, .verb = verb, .argv = argv, .out = ret };
	bool only_words = false;
	int r = CLI_OK;

	find_json(&p);
	device_keys_init(&p.keys);
	ret->keys = cli_must(json_object_new_object());
	while (r == CLI_OK && *p.argv)
		r = take_argument(&p, *p.argv++, &only_words);
	device_keys_deinit(&p.keys);
	if (r == CLI_OK && !ret->help && ret->n_words < verb->min_words)
		r = cli_error(cli, CLI_USAGE, "usage: nbdctl %s %s", verb->name,
			      verb->synopsis);
	return r;
}
