/* Which lines of fstab stand on devices of nbdd. */
#include <errno.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/generator/generator.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

#define LINE_BYTES 16384

/* `p3`, `-part3`: a partition; or nothing. */
static bool is_partition(const char *text, const char *mark)
{
	size_t len = strlen(mark);

	if (!*text)
		return true;
	return strncmp(text, mark, len) == 0 && text[len] &&
	       strspn(text + len, "0123456789") == strlen(text + len);
}

/* Is PATH the node or a partition of D, or one of the links that udev makes of its name? */
static bool is_of_device(const char *path, const struct conf_device *d)
{
	char start[CONF_NAME_MAX + 64];
	const struct {
		const char *directory, *name, *mark;
	} forms[] = {
		{ "/dev/disk/by-id/nbd-", d->name, "-part" },
		{ "/dev/nbd/by-name/", d->name, "-part" },
		{ "/dev/", NULL, "p" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		char node[32];
		size_t len;

		snprintf(node, sizeof(node), "nbd%d", d->index);
		if (!forms[i].name && d->index < 0)
			continue;
		snprintf(start, sizeof(start), "%s%s", forms[i].directory,
			 forms[i].name ? forms[i].name : node);
		len = strlen(start);
		if (strncmp(path, start, len) == 0 && is_partition(path + len, forms[i].mark))
			return true;
	}
	return false;
}

static const struct conf_device *find_device(const struct generator *g, const char *path)
{
	for (size_t i = 0; i < g->conf->n_devices; i++)
		if (is_of_device(path, &g->conf->devices[i]))
			return &g->conf->devices[i];
	return NULL;
}

/* A value that systemd would not understand does not count. */
static void read_timeout(struct use *u, const struct mntent *m)
{
	static const char name[] = "x-systemd.device-timeout=";
	const char *start = strstr(m->mnt_opts, name);
	char text[32];
	size_t len;

	if (!start)
		return;
	start += strlen(name);
	len = strcspn(start, ",");
	if (len >= sizeof(text))
		return;
	memcpy(text, start, len);
	text[len] = '\0';
	u->has_timeout = parse_usec(text, &u->timeout_usec) == 0;
	if (u->timeout_usec == 0)	/* systemd.mount(5): wait for ever */
		u->timeout_usec = USEC_INFINITY;
}

/* What it should have said. */
static void add_netdev(struct use *u)
{
	char *said = u->options;

	if (asprintf(&u->options, "%s,_netdev", said) < 0)
		u->options = NULL;
	free(said);
}

static int add_use(struct generator *g, const struct conf_device *d, const struct mntent *m)
{
	struct use *u = &g->uses[g->n_uses];

	if (g->n_uses == USES_MAX)
		return -E2BIG;
	*u = (struct use){
		.device = d, .pass = m->mnt_passno,
		.what = strdup(m->mnt_fsname), .where = strdup(m->mnt_dir),
		.type = strdup(m->mnt_type), .options = strdup(m->mnt_opts),
		.swap = strcmp(m->mnt_type, "swap") == 0,
		.nofail = hasmntopt(m, "nofail"), .noauto = hasmntopt(m, "noauto"),
		.netdev = hasmntopt(m, "_netdev"),
		.automount = hasmntopt(m, "x-systemd.automount"),
		.wanted = hasmntopt(m, "x-systemd.wanted-by") ||
			  hasmntopt(m, "x-systemd.required-by"),
	};
	g->n_uses++;
	read_timeout(u, m);
	if (!u->netdev && u->options)
		add_netdev(u);
	return u->what && u->where && u->type && u->options ? 0 : -ENOMEM;
}

int generator_read_fstab(struct generator *g)
{
	FILE *f = setmntent(g->fstab, "re");
	char line[LINE_BYTES];
	struct mntent m;
	int r = 0;

	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && getmntent_r(f, &m, line, sizeof(line))) {
		const struct conf_device *d = find_device(g, m.mnt_fsname);

		/* What the system runs from is attached since the initramfs. */
		if (d && !generator_is_root(g, d->index))
			r = add_use(g, d, &m);
	}
	endmntent(f);
	return r;
}

void generator_free_uses(struct generator *g)
{
	for (size_t i = 0; i < g->n_uses; i++) {
		free(g->uses[i].what);
		free(g->uses[i].where);
		free(g->uses[i].type);
		free(g->uses[i].options);
	}
}
