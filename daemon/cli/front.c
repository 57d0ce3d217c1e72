/* nbd-client: what scripts and units call, asking nbdd for what nbd-client did itself. */
#include "daemon/cli/front.h"

#include <stdarg.h>
#include <stdlib.h>

static const char usage_text[] =
	"Usage: nbd-client [OPTION]... HOST [PORT] [DEVICE] -name EXPORT\n"
	"  or:  nbd-client [OPTION]... -unix SOCKET [DEVICE] -name EXPORT\n"
	"  or:  nbd-client nbdN                 a device of " NBDD_SYSCONFDIR "/nbdtab\n"
	"  or:  nbd-client -d DEVICE...         disconnect\n"
	"  or:  nbd-client -c DEVICE            check: print the pid, or exit with 1\n"
	"  or:  nbd-client -l HOST [PORT]       list the exports\n"
	"  or:  nbd-client -h | -V\n"
	"\n"
	"  -N, -name EXPORT          -b, -block-size BYTES     -B, -size BYTES\n"
	"  -t, -timeout SECONDS      -T, -dead-timeout SECONDS -C, -connections NUMBER\n"
	"  -p, -persist              -s, -swap                 -R, -readonly\n"
	"  -i, -identifier TEXT      -m, -systemd-mark         -n, -nofork\n"
	"  -P, -preinit              -g, -no-optgo             -L, -nonetlink\n"
	"  -x, -enable-tls           -A, -cacertfile FILE      -F, -certfile FILE\n"
	"  -K, -keyfile FILE         -H, -tlshostname NAME     -y, -priority STRING\n"
	"\n"
	"Options take one dash or two, and may be abbreviated.  The device is kept attached\n"
	"by nbdd(8), which is started when it does not run.  See nbd-client(8).\n";

void front_usage(FILE *out)
{
	fputs(usage_text, out);
}

int front_error(const struct front *f, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("nbd-client: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return 1;
}

void front_set_key(struct front *f, const char *name, const char *value)
{
	json_object_object_add(f->keys, name, cli_must(json_object_new_string(value)));
}

static int front_help(struct front *f)
{
	front_usage(stderr);
	return 0;
}

/* Scripts look for nbd-client's name and version. */
static int front_version(struct front *f)
{
	puts("This is nbd-client, from nbd " FRONT_VERSION " (nbdd " NBDD_VERSION ")");
	return 0;
}

static int (*const actions[N_FRONT_ACTIONS])(struct front *f) = {
	[FRONT_CONNECT] = front_connect,
	[FRONT_LIST] = front_list,
	[FRONT_CHECK] = front_check,
	[FRONT_DISCONNECT] = front_disconnect,
	[FRONT_HELP] = front_help,
	[FRONT_VERSION_] = front_version,
};

int cli_front(int argc, char **argv)
{
	struct front f = { .cli = { .runtime_dir = NBDD_RUNDIR, .program = "nbd-client" } };
	int r = front_parse(&f, argc, argv);

	if (r == 0)
		r = actions[f.action](&f);
	json_object_put(f.keys);
	free(f.devices);
	return r;
}
