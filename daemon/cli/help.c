#include <string.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"

#define WIDTH	80
#define INDENT	8

/* Print TEXT in lines of at most WIDTH columns, each with INDENT blanks before it. */
static void print_wrapped(const char *text, int indent)
{
	int column = 0;

	while (*text) {
		size_t n = strcspn(text, " \n");

		if (column && column + 1 + (int)n > WIDTH) {
			putchar('\n');
			column = 0;
		}
		if (!column)
			column = printf("%*s", indent, "");
		else
			column += printf(" ");
		column += printf("%.*s", (int)n, text);
		text += n;
		if (*text == '\n') {
			putchar('\n');
			column = 0;
		}
		text += *text != '\0';
	}
	putchar('\n');
}

static const struct cli_option common[] = {
	{ "runtime-dir", "DIR", "Where the daemon's control socket is, by default "
	  NBDD_RUNDIR "." },
	{ "help", NULL, "Show this and exit." },
};

static void print_option(const struct cli_option *o)
{
	printf("  --%s%s%s\n", o->name, o->value ? "=" : "", o->value ? o->value : "");
	print_wrapped(o->text, INDENT);
}

void cli_help(void)
{
	puts("nbdctl [--runtime-dir=DIR] VERB [ARGUMENTS]\n\n"
	     "Attach NBD exports as block devices and see how they are.\n");
	for (size_t i = 0; i < n_cli_verbs; i++)
		printf("  %-10s  %s\n", cli_verbs[i].name, cli_verbs[i].summary);
	puts("\n`nbdctl VERB --help` tells more of a verb; nbdctl(8) lists the exit "
	     "statuses.\n");
	for (size_t i = 0; i < ARRAY_SIZE(common); i++)
		print_option(&common[i]);
	print_option(&(struct cli_option){ "version", NULL,
					   "Show the version and exit." });
}

static void print_key(const struct conf_key *key)
{
	printf("  --%s=%s\n", key->name, key->value);
	print_wrapped(key->text, INDENT);
	if (key->initial)
		printf("%*sBy default %s.\n", INDENT, "", key->initial);
}

void cli_help_verb(const struct cli_verb *verb)
{
	printf("nbdctl %s%s%s\n\n", verb->name, *verb->synopsis ? " " : "", verb->synopsis);
	print_wrapped(verb->summary, 0);
	if (verb->text) {
		putchar('\n');
		print_wrapped(verb->text, 0);
	}
	putchar('\n');
	for (size_t i = 0; i < CLI_OPTIONS_MAX && verb->options[i].name; i++)
		print_option(&verb->options[i]);
	for (size_t i = 0; i < ARRAY_SIZE(common); i++)
		print_option(&common[i]);
	if (!verb->keys)
		return;
	puts("\nKeys, as in nbdd.conf(5):");
	for (size_t i = 0; i < n_conf_keys; i++)
		if (strncmp(conf_keys[i].name, verb->keys, strlen(verb->keys)) == 0)
			print_key(&conf_keys[i]);
}

int verb_help(struct cli *cli, const struct cli_arguments *a)
{
	const struct cli_verb *verb;

	if (!a->n_words) {
		cli_help();
		return CLI_OK;
	}
	verb = cli_find_verb(a->words[0]);
	if (!verb)
		return cli_error(cli, CLI_USAGE, "there is no such verb (see `nbdctl help`)");
	cli_help_verb(verb);
	return CLI_OK;
}
