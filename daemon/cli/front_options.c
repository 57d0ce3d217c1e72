/* nbd-client's command line: its options, in all their spellings, and its operands. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "daemon/cli/front.h"
#include "lib/util/cleanup.h"
#include "lib/util/units.h"

#define OPTION_BASE	256		/* getopt's value of the first row */
#define BLOCK		512u

struct option_row;
typedef int (*take_option)(struct front *f, const struct option_row *o, const char *value);

/* An option: what getopt needs, and where its value goes. */
struct option_row {
	const char *name;
	char letter;			/* or NUL */
	bool argument;
	take_option take;
	const char *key;		/* of nbdd.conf */
	const char *value;		/* of the key, when the option takes none */
	size_t offset;			/* of a bool or an action's number in struct front */
	unsigned number;
};

static int take_key(struct front *f, const struct option_row *o, const char *value)
{
	front_set_key(f, o->key, o->argument ? value : o->value);
	return 0;
}

static int take_flag(struct front *f, const struct option_row *o, const char *value)
{
	*(bool *)((char *)f + o->offset) = true;
	return 0;
}

static int take_nothing(struct front *f, const struct option_row *o, const char *value)
{
	return 0;
}

static int take_action(struct front *f, const struct option_row *o, const char *value)
{
	f->action = (enum front_action)o->number;
	if (value)
		f->devices[f->n_devices++] = value;
	return 0;
}

static int take_file(struct front *f, const struct option_row *o, const char *value)
{
	f->files[o->number] = value;
	f->tls = true;
	return 0;
}

/* The name that the server's certificate must carry turns TLS on. */
static int take_hostname(struct front *f, const struct option_row *o, const char *value)
{
	f->tls = true;
	return take_key(f, o, value);
}

/* As strtoul with base 0 reads it, but the whole of it. */
static bool parse_number(const char *text, int base, uint64_t *ret)
{
	char *end;

	if (*text == '-')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, base);
	return *text && !*end && !errno;
}

static int set_number(struct front *f, const char *key, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	front_set_key(f, key, text);
	return 0;
}

static int take_number(struct front *f, const struct option_row *o, const char *value)
{
	uint64_t n;

	if (!parse_number(value, 0, &n))
		return front_error(f, "-%s: '%s' is not a number", o->name, value);
	return set_number(f, o->key, n);
}

static int take_block_size(struct front *f, const struct option_row *o, const char *value)
{
	uint64_t n;

	if (!parse_number(value, 0, &n) || !n || n % BLOCK)
		return front_error(f, "block size '%s' is not a multiple of 512", value);
	return set_number(f, o->key, n);
}

static int take_size(struct front *f, const struct option_row *o, const char *value)
{
	uint64_t n;

	if (!parse_number(value, 0, &n) || !n)
		return front_error(f, "invalid size '%s': a number of bytes is expected", value);
	return set_number(f, o->key, n);
}

/* The kernel takes 16 sockets; nbd-client takes any number. */
static int take_connections(struct front *f, const struct option_row *o, const char *value)
{
	uint64_t n;

	if (!parse_number(value, 0, &n) || !n)
		return front_error(f, "-%s: '%s' is not a number of 1 or more", o->name, value);
	if (n > CONF_CONNECTIONS_MAX)
		cli_warning("%s connections are asked for; %d are used, which is the limit",
			    value, CONF_CONNECTIONS_MAX);
	return set_number(f, o->key, MIN(n, (uint64_t)CONF_CONNECTIONS_MAX));
}

static int take_sdp(struct front *f, const struct option_row *o, const char *value)
{
	return front_error(f, "the Sockets Direct Protocol is gone from the kernel: leave "
			   "-%s out", o->name);
}

#define KEY(k)		.take = take_key, .key = k
#define FLAG(m)		.take = take_flag, .offset = offsetof(struct front, m)
#define ACTION(a)	.take = take_action, .number = a
#define TLS_FILE(n)	.take = take_file, .number = n

static const struct option_row rows[] = {
	{ "name", 'N', true, KEY("export") },
	{ "block-size", 'b', true, take_block_size, .key = "block-size" },
	{ "size", 'B', true, take_size, .key = "size" },
	{ "timeout", 't', true, take_number, .key = "timeout" },
	{ "dead-timeout", 'T', true, take_number, .key = "dead-timeout" },
	{ "connections", 'C', true, take_connections, .key = "connections" },
	{ "persist", 'p', FLAG(persist) },
	{ "preinit", 'P', KEY("preinit"), .value = "yes" },
	{ "readonly", 'R', KEY("read-only"), .value = "yes" },
	{ "swap", 's', KEY("swap"), .value = "yes" },
	{ "nofork", 'n', FLAG(foreground) },
	{ "systemd-mark", 'm', FLAG(systemd_mark) },
	{ "nonetlink", 'L', .take = take_nothing },
	{ "netlink", .take = take_nothing },
	{ "identifier", 'i', true, KEY("identifier") },
	{ "no-optgo", 'g', .take = take_nothing },
	{ "unix", 'u', FLAG(unix_socket) },
	{ "list", 'l', ACTION(FRONT_LIST) },
	{ "check", 'c', true, ACTION(FRONT_CHECK) },
	{ "disconnect", 'd', true, ACTION(FRONT_DISCONNECT) },
	{ "cacertfile", 'A', true, TLS_FILE(FRONT_CA) },
	{ "certfile", 'F', true, TLS_FILE(FRONT_CERTIFICATE) },
	{ "keyfile", 'K', true, TLS_FILE(FRONT_KEY) },
	{ "tlshostname", 'H', true, take_hostname, .key = "tls-hostname" },
	{ "enable-tls", 'x', FLAG(tls) },
	{ "priority", 'y', true, KEY("tls-priority") },
	{ "sdp", 'S', .take = take_sdp },
	{ "version", 'V', ACTION(FRONT_VERSION_) },
	{ "help", 'h', ACTION(FRONT_HELP) },
};

/* What getopt wants: long names, and letters, operands in their order. */
struct getopt_tables {
	struct option names[ARRAY_SIZE(rows) + 1];
	char letters[2 * ARRAY_SIZE(rows) + 2];
};

static void fill_tables(struct getopt_tables *t)
{
	char *p = t->letters;

	memset(t, 0, sizeof(*t));
	*p++ = '-';
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		t->names[i] = (struct option){ rows[i].name, rows[i].argument, NULL,
					       OPTION_BASE + (int)i };
		if (!rows[i].letter)
			continue;
		*p++ = rows[i].letter;
		if (rows[i].argument)
			*p++ = ':';
	}
}

static const struct option_row *find_row(int c)
{
	if (c >= OPTION_BASE)
		return &rows[c - OPTION_BASE];
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (c && rows[i].letter == c)
			return &rows[i];
	return NULL;
}

/* ---- operands ---------------------------------------------------------------------- */

/* `bs=4096` and `timeout=30`, from before there were options. */
static int take_assignment(struct front *f, const char *text)
{
	static const struct {
		const char *name, *option;
	} old[] = { { "bs=", "block-size" }, { "timeout=", "timeout" } };

	for (size_t i = 0; i < ARRAY_SIZE(old); i++) {
		size_t len = strlen(old[i].name);

		if (strncmp(text, old[i].name, len) != 0)
			continue;
		cli_warning("%s is deprecated: write -%s", text, old[i].option);
		for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
			if (strcmp(rows[k].name, old[i].option) == 0)
				return rows[k].take(f, &rows[k], text + len);
	}
	return front_error(f, "unknown option %s", text);
}

static int take_operand(struct front *f, const char *text)
{
	if (strchr(text, '=') && *text != '/')
		return take_assignment(f, text);
	if (f->action == FRONT_DISCONNECT) {
		f->devices[f->n_devices++] = text;
		return 0;
	}
	if (f->n_operands == ARRAY_SIZE(f->operands))
		return front_error(f, "too many operands: '%s'", text);
	f->operands[f->n_operands++] = text;
	return 0;
}

static bool is_device(const char *text)
{
	unsigned index;

	return conf_parse_device(text, &index) == 0;
}

/* The second operand is a port when it begins with a number other than 0, as there. */
static int place_operands(struct front *f)
{
	size_t i = 0;

	if (f->n_operands > i)
		f->host = f->operands[i++];
	if (f->n_operands > i && strtol(f->operands[i], NULL, 0))
		f->port = f->operands[i++];
	if (f->n_operands > i)
		f->device = f->operands[i++];
	if (f->n_operands > i) {
		front_usage(stderr);
		return front_error(f, "too many operands: '%s'", f->operands[i]);
	}
	if (f->port && (strspn(f->port, "0123456789") != strlen(f->port) ||
			strtol(f->port, NULL, 10) > 65535))
		return front_error(f, "port '%s' is not a number from 1 to 65535", f->port);
	if (f->device && !is_device(f->device))
		return front_error(f, "'%s' is not a device: /dev/nbdN is expected", f->device);
	return 0;
}

static int take_all(struct front *f, int argc, char **argv)
{
	struct getopt_tables t;
	const struct option_row *row;
	int c, r = 0;

	fill_tables(&t);
	while (r == 0 && (c = getopt_long_only(argc, argv, t.letters, t.names, NULL)) != -1) {
		row = find_row(c);
		if (c == 1) {
			r = take_operand(f, optarg);
		} else if (row) {
			r = row->take(f, row, row->argument ? optarg : NULL);
		} else {
			front_usage(stderr);
			r = 1;
		}
	}
	for (; r == 0 && optind < argc; optind++)	/* what follows `--` */
		r = take_operand(f, argv[optind]);
	return r;
}

int front_parse(struct front *f, int argc, char **argv)
{
	int r;

	f->devices = cli_must(calloc((size_t)argc + 1, sizeof(*f->devices)));
	f->keys = cli_must(json_object_new_object());
	r = take_all(f, argc, argv);
	return r == 0 && f->action <= FRONT_LIST ? place_operands(f) : r;
}
