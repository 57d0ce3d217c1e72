/* nbdd-generator: what its files share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "conf/conf.h"
#include "lib/util/macro.h"

#define UNIT_NAME_MAX	256		/* systemd's limit, with the NUL */
#define ROOTS_MAX	64
#define USES_MAX	1024		/* lines of fstab that are looked at */

/* A line of fstab whose device is one of ours. */
struct use {
	const struct conf_device *device;
	char *what, *where, *type, *options;
	int pass;			/* of fsck */
	bool swap, nofail, noauto, netdev, automount;
	bool wanted;			/* by units that it names, and not by a target for all */
	bool has_timeout;		/* x-systemd.device-timeout= */
	uint64_t timeout_usec;
};

struct generator {
	const char *normal, *early;	/* directories for units; see systemd.generator(7) */
	const char *fstab;
	const struct conf *conf;
	int roots[ROOTS_MAX];		/* / and /usr are made of these /dev/nbdN */
	size_t n_roots;
	const char *sys, *mark;		/* /sys; what the scripts of an initramfs leave */
	dev_t root_device;		/* for tests: what the system is on; or 0 */
	struct use uses[USES_MAX];
	size_t n_uses;
};

/* fstab.c: the lines that use a device of the configuration.  0 or -errno; a missing file is
 * an empty one. */
int generator_read_fstab(struct generator *g);
void generator_free_uses(struct generator *g);

/* names.c */
/* The name of the unit of PATH, `dev-nbd0.device`; false: it is too long. */
_must_check_ bool unit_of_path(char ret[static UNIT_NAME_MAX], const char *path,
			       const char *suffix);
/* The instance of nbd@.service that stands for D: its number, or else its name. */
void unit_of_device(char ret[static UNIT_NAME_MAX], const struct conf_device *d);

/* options.c */
/* The dependencies that the options ask for, for [Unit].  0 or -ENOMEM. */
int print_dependencies(FILE *f, const struct use *u);

/* files.c: files below DIR, a directory of units.  0 or -errno, which has been told. */
/* Begin, or go on with, the drop-in of UNIT; *RET is to be closed. */
int open_dropin(const char *dir, const char *unit, FILE **ret);
int open_unit(const char *dir, const char *unit, FILE **ret);
/* DIR/TARGET.KIND/UNIT points to TO, by default to the unit itself. */
int add_link(const char *dir, const char *target, const char *kind, const char *unit,
	     const char *to);

/* A text of fstab within a value of a unit. */
void print_escaped(FILE *f, const char *text);

/* root.c: which devices of nbd are / and /usr on, whatever is between them? */
void generator_find_roots(struct generator *g);
void generator_add_root(const char *disk, void *generator);	/* if it is one of nbd */
bool generator_is_root(const struct generator *g, int index);	/* -1: it has none yet */
/* ... on any, or so the initramfs says? */
bool generator_root_is_ours(const struct generator *g);

/* units.c: nbdd.service is root.  0 or -errno. */
int generator_write_root(const struct generator *g);
/* units.c: write everything else.  0 or the first -errno. */
int generator_write(const struct generator *g);
