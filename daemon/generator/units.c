/* The units, which tie fstab's lines to nbd@.service.
 *
 * A mount or swap starts when its device is there.  The device pulls nbd@.service in, which
 * attaches it; whoever stands on it is ordered after that service, and so leaves it before it
 * ends.  Nothing that must be up before the network may wait for any of them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/generator/generator.h"
#include "lib/util/clock.h"

/* What names the units of one use. */
struct names {
	char service[UNIT_NAME_MAX];	/* nbd@nbd0.service */
	char device[UNIT_NAME_MAX];	/* dev-nbd0.device */
	char user[UNIT_NAME_MAX];	/* data.mount, dev-nbd0.swap */
};

static bool make_names(const struct use *u, struct names *ret)
{
	unit_of_device(ret->service, u->device);
	return unit_of_path(ret->device, u->what, ".device") &&
	       (u->swap ? unit_of_path(ret->user, u->what, ".swap") :
			  unit_of_path(ret->user, u->where, ".mount"));
}

static int finish(FILE *f)
{
	int r = ferror(f) ? -EIO : 0;

	return fclose(f) == EOF && r == 0 ? -errno : r;
}

/* Whoever waits for the device has it attached; and it is mounted when it comes later than
 * anybody waited. */
static int write_device(const struct generator *g, const struct use *u, const struct names *n)
{
	FILE *f;
	int r = open_dropin(g->normal, n->device, &f);

	if (r < 0)
		return r;
	fprintf(f, "[Unit]\nWants=%s\n", n->service);
	/* Its time to appear begins with the network, as systemd-fstab-generator has it. */
	if (!u->netdev)
		fputs("Wants=network-online.target\nAfter=network-online.target "
		      "network.target\n", f);
	if (!u->noauto && !u->automount)
		fprintf(f, "Wants=%s\n", n->user);
	return finish(f);
}

/* Swap has no `_netdev` of its own: without its default dependencies swap.target, which comes
 * before everything, does not wait for the network. */
static int write_user(const struct generator *g, const struct use *u, const struct names *n)
{
	FILE *f;
	int r = open_dropin(g->normal, n->user, &f);

	if (r < 0)
		return r;
	fprintf(f, "[Unit]\nRequires=%1$s\nAfter=%1$s\n", n->service);
	if (u->swap)
		fputs("DefaultDependencies=no\nConflicts=umount.target\n"
		      "Before=umount.target\n", f);
	if (u->swap && !u->nofail)
		fputs("Before=remote-fs.target\n", f);
	r = finish(f);
	if (r == 0 && u->swap && !u->noauto)
		r = add_link(g->normal, "remote-fs.target", "wants", n->user, NULL);
	return r;
}

static void print_value(FILE *f, const char *name, const char *text)
{
	fprintf(f, "%s=", name);
	print_escaped(f, text);
	fputc('\n', f);
}

/* Without `_netdev` systemd-fstab-generator takes the mount for a local one, for which the
 * boot waits before there is a network.  A unit of higher precedence says what it is. */
static int write_remote_mount(const struct generator *g, const struct use *u,
			      const struct names *n)
{
	const char *kind = u->nofail ? "wants" : "requires";
	char fsck[UNIT_NAME_MAX];
	FILE *f;
	int r;

	fprintf(stderr, "nbdd-generator: %s: %s on %s should have the option _netdev; taken "
		"for a network filesystem\n", g->fstab, u->what, u->where);
	r = open_unit(g->early, n->user, &f);
	if (r < 0)
		return r;
	fprintf(f, "[Unit]\nDocumentation=man:fstab(5)\nSourcePath=%s\n", g->fstab);
	if (!u->nofail)
		fputs("Before=remote-fs.target\n", f);
	if (u->pass && unit_of_path(fsck, u->what, ".service"))
		fprintf(f, "Requires=systemd-fsck@%1$s\nAfter=systemd-fsck@%1$s\n", fsck);
	r = print_dependencies(f, u);
	fputs("\n[Mount]\n", f);
	print_value(f, "What", u->what);
	print_value(f, "Where", u->where);
	print_value(f, "Type", u->type);
	print_value(f, "Options", u->options);	/* with _netdev */
	r = MIN(r, finish(f));
	if (r < 0 || u->noauto || u->wanted)
		return r;
	r = add_link(g->early, "remote-fs.target", kind, n->user, NULL);
	if (r == 0)
		r = add_link(g->early, "local-fs.target", kind, n->user, "/dev/null");
	return r;
}

static int write_use(const struct generator *g, const struct use *u)
{
	struct names n;
	int r;

	if (!make_names(u, &n))
		return 0;	/* longer than systemd's names: no unit of it exists */
	r = write_device(g, u, &n);
	if (r == 0)
		r = write_user(g, u, &n);
	if (r == 0 && !u->swap && !u->netdev && !u->automount)
		r = write_remote_mount(g, u, &n);
	return r;
}

/* ---- the service of a device ------------------------------------------------------- */

struct wishes {
	bool waited_for;		/* by something that the boot needs */
	bool has_timeout;
	uint64_t timeout_usec;		/* the longest */
};

static struct wishes gather(const struct generator *g, const struct conf_device *d)
{
	struct wishes w = {};

	for (size_t i = 0; i < g->n_uses; i++) {
		const struct use *u = &g->uses[i];

		if (u->device != d)
			continue;
		w.waited_for |= !u->nofail && !u->noauto && !u->automount;
		w.has_timeout |= u->has_timeout;
		w.timeout_usec = MAX(w.timeout_usec, u->timeout_usec);
	}
	return w;
}

static int write_service(const struct generator *g, const struct conf_device *d)
{
	struct wishes w = gather(g, d);
	char unit[UNIT_NAME_MAX];
	FILE *f;
	int r;

	unit_of_device(unit, d);
	if (d->automatic) {
		r = add_link(g->normal, "remote-fs.target", "wants", unit,
			     NBDD_UNITDIR "/nbd@.service");
		if (r < 0)
			return r;
	}
	if (!w.waited_for && !w.has_timeout)
		return 0;
	r = open_dropin(g->normal, unit, &f);
	if (r < 0)
		return r;
	if (w.waited_for)
		fputs("[Unit]\nWants=remote-fs-pre.target\nBefore=remote-fs-pre.target\n", f);
	if (w.has_timeout && w.timeout_usec == USEC_INFINITY)
		fputs("[Service]\nTimeoutStartSec=infinity\n", f);
	else if (w.has_timeout)
		fprintf(f, "[Service]\nTimeoutStartSec=%" PRIu64 "us\n", w.timeout_usec);
	return finish(f);
}

int generator_write_root(const struct generator *g)
{
	return add_link(g->normal, "nbdd.service", "d", "nbdd-root.conf",
			NBDD_LIBDIR "/nbdd-root.conf");
}

int generator_write(const struct generator *g)
{
	int r = 0;

	for (size_t i = 0; i < g->n_uses && r == 0; i++)
		r = write_use(g, &g->uses[i]);
	for (size_t i = 0; i < g->conf->n_devices && r == 0; i++)
		if (!generator_is_root(g, g->conf->devices[i].index))
			r = write_service(g, &g->conf->devices[i]);
	return r;
}
