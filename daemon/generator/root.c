/* Is what the system runs from on a device of nbdd?  Then no file of it can be read while that
 * is away.  The scripts of the initramfs leave a mark; and the block device that / or /usr
 * is on may be one of nbd, a partition of one, or be made of one (LVM, LUKS, RAID). */
#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/generator/generator.h"
#include "lib/util/cleanup.h"

#define DEPTH_MAX 16			/* of devices that are made of others */

static bool is_made_of_nbd(const char *directory, unsigned depth);

/* DIRECTORY/slaves: the devices that this one is made of. */
static bool has_slave_of_nbd(const char *directory, unsigned depth)
{
	char path[PATH_MAX];
	struct dirent **entries;
	bool found = false;
	int n;

	if ((size_t)snprintf(path, sizeof(path), "%s/slaves", directory) >= sizeof(path))
		return false;
	n = scandir(path, &entries, NULL, NULL);
	for (int i = 0; i < n; i++) {
		char slave[PATH_MAX];

		if (entries[i]->d_name[0] != '.' && !found &&
		    (size_t)snprintf(slave, sizeof(slave), "%s/%s", path, entries[i]->d_name) <
		    sizeof(slave))
			found = is_made_of_nbd(slave, depth + 1);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	return found;
}

/* DIRECTORY is one of a device in /sys, or a link to it. */
static bool is_made_of_nbd(const char *directory, unsigned depth)
{
	char real[PATH_MAX], part[PATH_MAX + 16], *name;

	if (depth > DEPTH_MAX || !realpath(directory, real))
		return false;
	name = strrchr(real, '/');
	if (strncmp(name, "/nbd", 4) == 0 && isdigit((unsigned char)name[4]))
		return true;
	snprintf(part, sizeof(part), "%s/partition", real);
	if (access(part, F_OK) == 0) {
		*name = '\0';
		return is_made_of_nbd(real, depth + 1);
	}
	return has_slave_of_nbd(real, depth);
}

static bool device_is_nbd(const char *sys, dev_t device)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", sys, major(device), minor(device));
	return is_made_of_nbd(path, 0);
}

/* What is mounted on WHERE, for filesystems whose device number is none of a disk (btrfs). */
static bool mounted_is_nbd(const struct generator *g, const char *where)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	const struct mntent *m;
	bool found = false;

	while (f && (m = getmntent(f))) {
		struct stat st;

		if (strcmp(m->mnt_dir, where) == 0)
			found = stat(m->mnt_fsname, &st) == 0 && S_ISBLK(st.st_mode) &&
				device_is_nbd(g->sys, st.st_rdev);
	}
	if (f)
		endmntent(f);
	return found;
}

bool generator_root_is_ours(const struct generator *g)
{
	static const char *const places[] = { "/", "/usr" };
	struct stat st;

	if (g->root_index >= 0 || access(g->mark, F_OK) == 0)
		return true;
	if (g->root_device)
		return device_is_nbd(g->sys, g->root_device);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if ((stat(places[i], &st) == 0 && device_is_nbd(g->sys, st.st_dev)) ||
		    mounted_is_nbd(g, places[i]))
			return true;
	return false;
}
