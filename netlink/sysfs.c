/* What sysfs tells of a device, and its queue settings. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/nbd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/util/buffer.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"
#include "netlink/nbdk.h"
#include "netlink/sysfs.h"

#define SYSFS_SECTOR		512	/* of `size` and `stat`, whatever the block size */
#define QUEUE_NAME_MAX		64

int sysfs_open_device(unsigned index)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/sys/block/nbd%u", index);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT && access("/sys/module/nbd", F_OK) < 0)
		return -ENODEV;
	return -errno;
}

int sysfs_read_text(int dir, const char *name, char *buf, size_t size)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	/* An attribute is made as a whole by the first read, at most a page. */
	n = read(fd, buf, size);
	if (n < 0)
		return -errno;
	if ((size_t)n == size)
		return -EOVERFLOW;
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
	return 0;
}

static int read_u64(int dir, const char *name, uint64_t *ret)
{
	char text[32];
	int r = sysfs_read_text(dir, name, text, sizeof text);

	return r < 0 ? r : parse_u64(text, ret);
}

/* `stat`: reads, merges, sectors, ms; writes, merges, sectors, ms; in flight; … (kernel:
 * Documentation/block/stat.rst). */
static int read_stat(int dir, struct nbdk_info *info)
{
	char text[512];
	uint64_t read_sectors, write_sectors, read_ms, write_ms;
	int r = sysfs_read_text(dir, "stat", text, sizeof text);

	if (r < 0)
		return r;
	if (sscanf(text,
		   "%" SCNu64 "%*u%" SCNu64 "%" SCNu64 "%" SCNu64 "%*u%" SCNu64 "%" SCNu64 "%u",
		   &info->reads, &read_sectors, &read_ms, &info->writes, &write_sectors,
		   &write_ms, &info->in_flight) != 7)
		return -EBADMSG;
	info->read_usec = read_ms * USEC_PER_MSEC;
	info->write_usec = write_ms * USEC_PER_MSEC;
	info->read_bytes = read_sectors * SYSFS_SECTOR;
	info->write_bytes = write_sectors * SYSFS_SECTOR;
	return 0;
}

/* The attributes `pid` and `backend` exist only while the device is connected; they may go
 * between one read and the next, which then is a device without them. */
static int read_connection(int dir, struct nbdk_info *info)
{
	char backend[sizeof info->backend + 2];	/* and the line end */
	uint64_t pid;
	int r = read_u64(dir, "pid", &pid);

	if (r == -ENOENT || r == -ENODEV)
		return 0;
	if (r < 0)
		return r;
	info->connected = true;
	info->pid = (int)pid;
	/* Kernels before 5.14, and other programs' devices, have none; nor is one that
	 * does not fit ours. */
	r = sysfs_read_text(dir, "backend", backend, sizeof backend);
	if (r == -ENOENT || r == -ENODEV || r == -EOVERFLOW)
		return 0;
	if (r == 0 && strlen(backend) < sizeof info->backend)
		snprintf(info->backend, sizeof info->backend, "%s", backend);
	return r;
}

int nbdk_sysfs_connection(unsigned index, struct nbdk_info *ret)
{
	_cleanup_close_ int dir = sysfs_open_device(index);
	struct nbdk_info info = { 0 };
	int r = dir < 0 ? dir : read_connection(dir, &info);

	if (r == 0)
		*ret = info;
	return r;
}

int nbdk_sysfs_read(unsigned index, struct nbdk_info *ret)
{
	_cleanup_close_ int dir = sysfs_open_device(index);
	struct nbdk_info info = { 0 };
	uint64_t sectors, ro;
	int r;

	if (dir < 0)
		return dir;
	if ((r = read_connection(dir, &info)) < 0 ||
	    (r = read_u64(dir, "size", &sectors)) < 0 ||
	    (r = read_u64(dir, "ro", &ro)) < 0 ||
	    (r = read_stat(dir, &info)) < 0)
		return r;
	info.size = sectors * SYSFS_SECTOR;
	info.read_only = ro != 0;
	*ret = info;
	return 0;
}

/* The attribute `pid` goes with the connection, and never comes back under one descriptor. */
int nbdk_life_open(unsigned index)
{
	_cleanup_close_ int dir = sysfs_open_device(index);
	int fd;

	if (dir < 0)
		return dir;
	fd = openat(dir, "pid", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

bool nbdk_life_goes_on(int fd)
{
	char byte;

	return pread(fd, &byte, 1, 0) == 1;
}

/* `queue/NAME`, which must stay within the queue's directory. */
static int queue_path(char path[static QUEUE_NAME_MAX + 8], const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > QUEUE_NAME_MAX || name[0] == '.' || strchr(name, '/'))
		return -EINVAL;
	snprintf(path, QUEUE_NAME_MAX + 8, "queue/%s", name);
	return 0;
}

int nbdk_queue_set(unsigned index, const char *name, uint64_t value)
{
	_cleanup_close_ int dir = -1, fd = -1;
	char path[QUEUE_NAME_MAX + 8], text[32];
	int len, r = queue_path(path, name);

	if (r < 0)
		return r;
	dir = sysfs_open_device(index);
	if (dir < 0)
		return dir;
	fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = snprintf(text, sizeof text, "%" PRIu64, value);
	return write(fd, text, (size_t)len) < 0 ? -errno : 0;
}

int nbdk_queue_get(unsigned index, const char *name, uint64_t *ret)
{
	_cleanup_close_ int dir = -1;
	char path[QUEUE_NAME_MAX + 8];
	int r = queue_path(path, name);

	if (r < 0)
		return r;
	dir = sysfs_open_device(index);
	return dir < 0 ? dir : read_u64(dir, path, ret);
}

bool nbdk_never_opened(unsigned index, uint64_t requests)
{
	uint64_t partitions, counted;
	struct nbdk_info info;

	return read_u64(AT_FDCWD, "/sys/module/nbd/parameters/max_part", &partitions) == 0 &&
		nbdk_queue_get(index, "iostats", &counted) == 0 && partitions && counted &&
		nbdk_sysfs_read(index, &info) == 0 && info.reads + info.writes == requests;
}

/* `nbdN` with nothing around it. */
static int parse_name(const char *name, uint32_t *ret)
{
	if (strncmp(name, "nbd", 3) != 0 || !isdigit((unsigned char)name[3]) ||
	    (name[3] == '0' && name[4]))
		return -EINVAL;
	return parse_u32(name + 3, ret);
}

static int by_index(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int list_devices(struct buffer *list)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	uint32_t index;
	int r = 0;

	if (!dir)
		return -errno;
	while (r == 0 && (entry = readdir(dir)))
		if (parse_name(entry->d_name, &index) == 0 && index <= NBDK_INDEX_MAX)
			r = buffer_append(list, &index, sizeof index);
	closedir(dir);
	return r;
}

int nbdk_foreach(int (*fn)(unsigned index, void *userdata), void *userdata)
{
	_cleanup_(buffer_clear) struct buffer list =
		BUFFER_NULL((NBDK_INDEX_MAX + 1) * sizeof(uint32_t));
	int r = list_devices(&list);
	size_t n = list.len / sizeof(uint32_t);

	if (n > 1)
		qsort(list.data, n, sizeof(uint32_t), by_index);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = fn(((uint32_t *)list.data)[i], userdata);
	return r < 0 ? r : 0;
}
