/* Who holds a device or one of its partitions: mounts, swap, devices made of it, processes.
 *
 * Nothing here opens the device, nor follows a path that is not below /dev: either could
 * wait for ever for a server that is away. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/util/cleanup.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"
#include "netlink/nbdk.h"
#include "netlink/sysfs.h"

#define DEVICES_MAX	257	/* the device and its partitions: a minor is 8 bits of them */
#define LINE_MAX_BYTES	16384	/* of /proc files: two paths with escapes, and options */
#define FDS_MAX		65536	/* looked at in one process */
#define NAMESPACES_MAX	64	/* mount namespaces looked at */

struct device {
	dev_t dev;
	char name[32];
};

struct search {
	struct device devices[DEVICES_MAX];
	size_t n_devices;
	ino_t namespaces[NAMESPACES_MAX];
	size_t n_namespaces;
	struct nbdk_holder *holders;
	size_t n, max;
	char line[LINE_MAX_BYTES];
};

static void cleanup_closedir_p(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define _cleanup_closedir_ _cleanup_(cleanup_closedir_p)

static DIR *open_directory(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		fd_close(fd);
	return d;
}

/* The next entry that has a name of its own. */
static const char *next_name(DIR *d)
{
	struct dirent *entry;

	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.')
			return entry->d_name;
	return NULL;
}

/* ---- what is found, and what it is compared with ------------------------------------ */

static bool full(const struct search *s)
{
	return s->n == s->max;
}

static void add(struct search *s, enum nbdk_holder_kind kind, const struct device *d,
		const char *text, int pid)
{
	struct nbdk_holder h = { .kind = kind, .pid = pid };

	if (full(s))
		return;
	snprintf(h.device, sizeof h.device, "%s", d->name);
	escape_text(h.text, sizeof h.text, text, strlen(text));
	/* A mount shows up in each mount namespace that got a copy of it. */
	for (size_t i = 0; kind == NBDK_HOLDER_MOUNT && i < s->n; i++)
		if (s->holders[i].kind == kind && !strcmp(s->holders[i].text, h.text) &&
		    !strcmp(s->holders[i].device, h.device))
			return;
	s->holders[s->n++] = h;
}

static const struct device *by_number(const struct search *s, dev_t dev)
{
	for (size_t i = 0; i < s->n_devices; i++)
		if (s->devices[i].dev == dev)
			return &s->devices[i];
	return NULL;
}

static const struct device *by_stat(const struct search *s, int at, const char *path)
{
	struct statx st;

	/* A file system that has to ask somebody is content with what it knows. */
	if (statx(at, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) < 0 ||
	    !S_ISBLK(st.stx_mode))
		return NULL;
	return by_number(s, makedev(st.stx_rdev_major, st.stx_rdev_minor));
}

static const struct device *by_path(const struct search *s, const char *path)
{
	return strncmp(path, "/dev/", 5) == 0 ? by_stat(s, AT_FDCWD, path) : NULL;
}

static int add_device(struct search *s, int sysfs, const char *name)
{
	struct device *d = &s->devices[s->n_devices];
	unsigned major, minor;
	char text[32];
	int r = sysfs_read_text(sysfs, "dev", text, sizeof text);

	if (r < 0)
		return r;
	if (sscanf(text, "%u:%u", &major, &minor) != 2 || strlen(name) >= sizeof d->name)
		return -EBADMSG;
	d->dev = makedev(major, minor);
	snprintf(d->name, sizeof d->name, "%s", name);
	s->n_devices++;
	return 0;
}

static int find_devices(struct search *s, unsigned index)
{
	_cleanup_close_ int dir = sysfs_open_device(index);
	_cleanup_closedir_ DIR *d = NULL;
	char whole[16];
	const char *name;
	size_t len;
	int r;

	if (dir < 0)
		return dir;
	len = (size_t)snprintf(whole, sizeof whole, "nbd%u", index);
	r = add_device(s, dir, whole);
	if (r < 0)
		return r;
	d = open_directory(dir, ".");
	if (!d)
		return -errno;
	while (s->n_devices < DEVICES_MAX && (name = next_name(d))) {
		_cleanup_close_ int part = -1;

		if (strncmp(name, whole, len) != 0 || name[len] != 'p')
			continue;
		part = openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		/* A partition may go while we look. */
		if (part >= 0)
			(void)!add_device(s, part, name);
	}
	return 0;
}

/* ---- lines of /proc ------------------------------------------------------------------ */

/* The next line without its end into s->line; what does not fit is left out. */
static bool next_line(struct search *s, FILE *f)
{
	size_t len;

	if (!fgets(s->line, sizeof s->line, f))
		return false;
	len = strlen(s->line);
	if (len && s->line[len - 1] == '\n')
		s->line[len - 1] = '\0';
	else
		for (int c = getc(f); c != '\n' && c != EOF;)
			c = getc(f);
	return true;
}

/* Cut the next field off *P; the kernel writes white space within one as \ooo. */
static char *next_field(char **p)
{
	char *in = *p + strspn(*p, " \t"), *field = in, *out = in;

	for (; *in && *in != ' ' && *in != '\t'; in++) {
		if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' &&
		    in[2] <= '7' && in[3] >= '0' && in[3] <= '7') {
			*out++ = (char)((in[1] - '0') << 6 | (in[2] - '0') << 3 |
					(in[3] - '0'));
			in += 3;
		} else {
			*out++ = *in;
		}
	}
	*p = *in ? in + 1 : in;
	*out = '\0';
	return field;
}

/* `36 35 43:0 / /mnt rw,noatime shared:1 - ext4 /dev/nbd0 rw` (proc_pid_mountinfo(5)).
 * The number is that of the file system's st_dev, which for btrfs is not the device's, so
 * the source is looked at as well. */
static void take_mount(struct search *s, int pid)
{
	char *p = s->line, *number, *where;
	const struct device *d = NULL;
	unsigned major, minor;

	next_field(&p);
	next_field(&p);
	number = next_field(&p);
	if (sscanf(number, "%u:%u", &major, &minor) != 2)
		return;
	d = by_number(s, makedev(major, minor));
	next_field(&p);
	where = next_field(&p);
	p = strstr(p, " - ");
	if (!d && p) {
		char *source;

		p += 3;
		next_field(&p);
		source = next_field(&p);
		d = by_path(s, source);
	}
	if (d)
		add(s, NBDK_HOLDER_MOUNT, d, where, pid);
}

static void find_mounts(struct search *s, int proc, const char *path, int pid)
{
	int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	_cleanup_fclose_ FILE *f = fd < 0 ? NULL : fdopen(fd, "re");

	if (!f) {
		fd_close(fd);
		return;
	}
	while (!full(s) && next_line(s, f))
		take_mount(s, pid);
}

static void find_swaps(struct search *s)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/swaps", "re");

	while (f && !full(s) && next_line(s, f)) {
		char *p = s->line, *path = next_field(&p);
		const struct device *d = by_path(s, path);

		if (d)
			add(s, NBDK_HOLDER_SWAP, d, path, 0);
	}
}

/* ---- devices made of it --------------------------------------------------------------- */

static void find_stacked(struct search *s, unsigned index)
{
	for (size_t i = 0; i < s->n_devices; i++) {
		const struct device *d = &s->devices[i];
		_cleanup_closedir_ DIR *dir = NULL;
		char path[96];
		const char *name;

		snprintf(path, sizeof path, "/sys/block/nbd%u/%s/holders", index,
			 i ? d->name : ".");
		dir = open_directory(AT_FDCWD, path);
		while (dir && !full(s) && (name = next_name(dir)))
			add(s, NBDK_HOLDER_DEVICE, d, name, 0);
	}
}

/* Loop devices hold their file without a trace in holders/ or in a process. */
static void find_loops(struct search *s)
{
	_cleanup_closedir_ DIR *dir = open_directory(AT_FDCWD, "/sys/block");
	const char *name;

	while (dir && !full(s) && (name = next_name(dir))) {
		char file[300], backing[256];
		const struct device *d;

		if (strncmp(name, "loop", 4) != 0)
			continue;
		snprintf(file, sizeof file, "%s/loop/backing_file", name);
		if (sysfs_read_text(dirfd(dir), file, backing, sizeof backing) < 0)
			continue;
		d = by_path(s, backing);
		if (d)
			add(s, NBDK_HOLDER_DEVICE, d, name, 0);
	}
}

/* ---- processes ------------------------------------------------------------------------ */

static void add_process(struct search *s, int process, const struct device *d, int pid)
{
	char name[64];
	bool known = sysfs_read_text(process, "comm", name, sizeof name) == 0;

	add(s, NBDK_HOLDER_PROCESS, d, known ? name : "?", pid);
}

/* One entry a process and device: the first descriptor of each will do. */
static void find_fds(struct search *s, int process, int pid)
{
	_cleanup_closedir_ DIR *fds = open_directory(process, "fd");
	uint8_t seen[DEVICES_MAX] = { 0 };
	const char *name;

	for (int i = 0; fds && i < FDS_MAX && !full(s) && (name = next_name(fds)); i++) {
		const struct device *d;
		char target;

		/* Sockets, pipes and the like have no path. */
		if (readlinkat(dirfd(fds), name, &target, 1) != 1 || target != '/')
			continue;
		d = by_stat(s, dirfd(fds), name);
		if (!d || seen[d - s->devices])
			continue;
		seen[d - s->devices] = 1;
		add_process(s, process, d, pid);
	}
}

/* The mounts that a process sees and nobody before it did. */
static void find_private_mounts(struct search *s, int process, int pid)
{
	struct stat st;

	if (fstatat(process, "ns/mnt", &st, 0) < 0 || s->n_namespaces == NAMESPACES_MAX)
		return;
	for (size_t i = 0; i < s->n_namespaces; i++)
		if (s->namespaces[i] == st.st_ino)
			return;
	s->namespaces[s->n_namespaces++] = st.st_ino;
	find_mounts(s, process, "mountinfo", pid);
}

/* A process that ends, or may not be looked at, is passed over.  So is the caller's own:
 * it knows what it has open. */
static void find_processes(struct search *s)
{
	_cleanup_closedir_ DIR *proc = open_directory(AT_FDCWD, "/proc");
	const char *name;
	uint32_t pid;

	while (proc && !full(s) && (name = next_name(proc))) {
		_cleanup_close_ int process = -1;

		if (parse_u32(name, &pid) < 0 || pid == (uint32_t)getpid())
			continue;
		process = openat(dirfd(proc), name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (process < 0)
			continue;
		find_private_mounts(s, process, (int)pid);
		find_fds(s, process, (int)pid);
	}
}

int nbdk_holders(unsigned index, struct nbdk_holder *holders, size_t max, size_t *ret_n)
{
	_cleanup_free_ struct search *s = calloc(1, sizeof *s);
	struct stat st;
	int r;

	if (!s)
		return -ENOMEM;
	s->holders = holders;
	s->max = max;
	r = find_devices(s, index);
	if (r < 0)
		return r;
	if (stat("/proc/self/ns/mnt", &st) == 0)
		s->namespaces[s->n_namespaces++] = st.st_ino;
	find_mounts(s, AT_FDCWD, "/proc/self/mountinfo", 0);
	find_swaps(s);
	find_stacked(s, index);
	find_loops(s);
	find_processes(s);
	*ret_n = s->n;
	return 0;
}
