/* nbdd-generator: systemd.generator(7) for the devices of nbdd.conf and nbdtab.
 *
 * It runs before anything is mounted and before there is a log: it reads three files, sees
 * what the root is on, and writes units; what is wrong goes to the kernel's log, by stderr. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/generator/generator.h"
#include "lib/util/units.h"

enum { OPT_CONFIG = 256, OPT_NBDTAB, OPT_FSTAB, OPT_ROOT, OPT_DEVICE, OPT_SYS, OPT_MARK };

/* For tests; systemd gives three directories. */
static const struct option options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "nbdtab", required_argument, NULL, OPT_NBDTAB },
	{ "fstab", required_argument, NULL, OPT_FSTAB },
	{ "root", required_argument, NULL, OPT_ROOT },
	{ "root-device", required_argument, NULL, OPT_DEVICE },	/* MAJOR:MINOR */
	{ "sys", required_argument, NULL, OPT_SYS },
	{ "mark", required_argument, NULL, OPT_MARK },
	{}
};

struct files {
	const char *config, *nbdtab;
};

static int parse(int argc, char **argv, struct generator *g, struct files *f)
{
	unsigned major, minor;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (c == OPT_CONFIG)
			f->config = optarg;
		else if (c == OPT_NBDTAB)
			f->nbdtab = optarg;
		else if (c == OPT_FSTAB)
			g->fstab = optarg;
		else if (c == OPT_ROOT)
			generator_add_root(optarg, g);
		else if (c == OPT_DEVICE && sscanf(optarg, "%9u:%9u", &major, &minor) == 2)
			g->root_device = makedev(major, minor);
		else if (c == OPT_SYS)
			g->sys = optarg;
		else if (c == OPT_MARK)
			g->mark = optarg;
		else
			return -EINVAL;
	if (argc - optind != 3 && argc - optind != 1)
		return -EINVAL;
	g->normal = argv[optind];
	g->early = argv[optind + (argc - optind == 3)];
	return 0;
}

static int run(struct generator *g, const struct files *f)
{
	struct conf *conf;
	int r;

	generator_find_roots(g);
	r = generator_root_is_ours(g) ? generator_write_root(g) : 0;

	if (r >= 0)
		r = conf_read(f->config, f->nbdtab, &conf);
	if (r < 0)
		return r;
	g->conf = conf;
	r = generator_read_fstab(g);
	if (r < 0)
		fprintf(stderr, "nbdd-generator: %s: %s\n", g->fstab, strerror(-r));
	r = generator_write(g);
	generator_free_uses(g);
	conf_free(conf);
	return r;
}

int main(int argc, char **argv)
{
	struct files f = { NBDD_SYSCONFDIR "/nbdd.conf", NBDD_SYSCONFDIR "/nbdtab" };
	struct generator *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return EXIT_FAILURE;
	g->fstab = "/etc/fstab";
	g->sys = "/sys";
	g->mark = NBDD_RUNDIR ROOTS_SUFFIX "/mark";
	r = parse(argc, argv, g, &f);
	if (r < 0)
		fputs("usage: nbdd-generator NORMAL EARLY LATE (systemd.generator(7))\n", stderr);
	else if (access("/etc/initrd-release", F_OK) < 0)	/* the initramfs has its own way */
		r = run(g, &f);
	free(g);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
