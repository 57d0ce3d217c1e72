#include "lib/util/disks.h"

#include <dirent.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/util/cleanup.h"

#define DEPTH_MAX 16			/* of devices that are made of others */

struct walk {
	disk_fn fn;
	void *userdata;
};

static void look(const struct walk *w, const char *directory, unsigned depth);

/* DIRECTORY/slaves: the devices that this one is made of. */
static void look_below(const struct walk *w, const char *directory, unsigned depth)
{
	char path[PATH_MAX];
	struct dirent **entries;
	int n;

	if ((size_t)snprintf(path, sizeof(path), "%s/slaves", directory) >= sizeof(path))
		return;
	n = scandir(path, &entries, NULL, NULL);
	for (int i = 0; i < n; i++) {
		char slave[PATH_MAX];

		if (entries[i]->d_name[0] != '.' &&
		    (size_t)snprintf(slave, sizeof(slave), "%s/%s", path, entries[i]->d_name) <
		    sizeof(slave))
			look(w, slave, depth + 1);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

/* DIRECTORY is one of a device in /sys, or a link to it. */
static void look(const struct walk *w, const char *directory, unsigned depth)
{
	char real[PATH_MAX], part[PATH_MAX + 16], *name;

	if (depth > DEPTH_MAX || !realpath(directory, real))
		return;
	name = strrchr(real, '/');
	snprintf(part, sizeof(part), "%s/partition", real);
	if (access(part, F_OK) == 0) {
		*name = '\0';
		look(w, real, depth + 1);
		return;
	}
	w->fn(name + 1, w->userdata);
	look_below(w, real, depth);
}

void disks_of_device(const char *sys, dev_t device, disk_fn fn, void *userdata)
{
	const struct walk w = { fn, userdata };
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", sys, major(device), minor(device));
	look(&w, path, 0);
}

/* What is mounted there, for filesystems whose device number is none of a disk (btrfs); 0. */
static dev_t mounted_device(const char *where)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	const struct mntent *m;
	dev_t found = 0;

	while (f && (m = getmntent(f))) {
		struct stat st;

		if (strcmp(m->mnt_dir, where) == 0)
			found = stat(m->mnt_fsname, &st) == 0 && S_ISBLK(st.st_mode) ? st.st_rdev
										   : 0;
	}
	if (f)
		endmntent(f);
	return found;
}

void disks_of_mount(const char *sys, const char *where, disk_fn fn, void *userdata)
{
	dev_t source = mounted_device(where);
	struct stat st;

	if (stat(where, &st) == 0)
		disks_of_device(sys, st.st_dev, fn, userdata);
	if (source)
		disks_of_device(sys, source, fn, userdata);
}
