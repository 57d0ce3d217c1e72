#include <string.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"

static int report(const struct conf *c)
{
	size_t errors, warnings;

	fflush(stdout);
	errors = conf_print_problems(c, stderr);
	warnings = c->n_problems - errors;
	printf("%zu device%s, %zu error%s, %zu warning%s\n",
	       c->n_devices, c->n_devices == 1 ? "" : "s", errors, errors == 1 ? "" : "s",
	       warnings, warnings == 1 ? "" : "s");
	return errors ? CLI_FAILED : CLI_OK;
}

int verb_check(struct cli *cli, const struct cli_arguments *a)
{
	struct conf *c;
	int r = a->n_words ? conf_read_one(a->words[0], &c) :
		conf_read(NBDD_SYSCONFDIR "/nbdd.conf", NBDD_SYSCONFDIR "/nbdtab", &c);

	if (r < 0)
		return cli_error(cli, CLI_FAILED, "check: %s", strerror(-r));
	r = report(c);
	conf_free(c);
	return r;
}
