/* Print the table of keys as troff, for nbdd.conf(5). */
#include <stdio.h>

#include "conf/conf.h"

/* TEXT with what troff would take for its own escaped. */
static void print_text(const char *text)
{
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", stdout);
		else if (*text == '-')
			fputs("\\-", stdout);
		else
			putchar(*text);
	}
}

/* How `nbdctl reload` makes another value count. */
static const char *const changes[] = {
	[CONF_LIVE] = "",
	[CONF_RECONNECT] = " A change takes new connections.",
	[CONF_MOVE] = " A change takes a move.",
	[CONF_ATTACH] = " It cannot change while the device is attached.",
};

static void print_key(const struct conf_key *key)
{
	char allowed[CONF_ALLOWED_MAX];

	printf(".TP\n\\fB");
	print_text(key->name);
	printf("\\fR = \\fI");
	print_text(key->value);
	/* A line that started with a dot or a quote would be a request. */
	printf("\\fR\n\\&");
	print_text(key->text);
	printf("\n.br\n\\&Allowed: ");
	print_text(conf_key_allowed(key, allowed));
	printf(". Default: ");
	print_text(key->initial ? key->initial : "none");
	printf(".%s\n", changes[key->change]);
}

int main(void)
{
	for (size_t i = 0; i < n_conf_keys; i++)
		print_key(&conf_keys[i]);
	return fflush(stdout) == 0 ? 0 : 1;
}
