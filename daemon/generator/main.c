/* nbdd-generator: systemd.generator(7) for the devices of nbdd.conf and nbdtab.
 *
 * It runs before anything is mounted and before there is a log: it reads three files, sees
 * what the root is on, and writes units; what is wrong goes to the kernel's log, by stderr. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/generator/generator.h"
#include "lib/util/units.h"

#define NBD_MAJOR 43

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

/* The index of the nbd device that the root filesystem is on, or -1. */
static int find_root(void)
{
	char path[64], target[PATH_MAX], *node;
	struct stat st;
	unsigned index;
	ssize_t n;

	if (stat("/", &st) < 0 || major(st.st_dev) != NBD_MAJOR)
		return -1;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(st.st_dev),
		 minor(st.st_dev));
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	node = strstr(target, "/nbd");	/* .../block/nbd0/nbd0p1 */
	if (!node)
		return -1;
	node[1 + strcspn(node + 1, "/")] = '\0';
	return conf_parse_device(node + 1, &index) == 0 ? (int)index : -1;
}

static int parse(int argc, char **argv, struct generator *g, struct files *f)
{
	unsigned root, major, minor;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (c == OPT_CONFIG)
			f->config = optarg;
		else if (c == OPT_NBDTAB)
			f->nbdtab = optarg;
		else if (c == OPT_FSTAB)
			g->fstab = optarg;
		else if (c == OPT_ROOT && conf_parse_device(optarg, &root) == 0)
			g->root_index = (int)root;
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
	int r = generator_root_is_ours(g) ? generator_write_root(g) : 0;

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
	g->root_index = find_root();
	r = parse(argc, argv, g, &f);
	if (r < 0)
		fputs("usage: nbdd-generator NORMAL EARLY LATE (systemd.generator(7))\n", stderr);
	else if (access("/etc/initrd-release", F_OK) < 0)	/* the initramfs has its own way */
		r = run(g, &f);
	free(g);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
