/* Any bytes as small files of sysfs and /proc: parts of the input, each ended by a byte 0xff,
 * are what FILES hold, in this order; a part of one byte 0xfe: that file is not there.
 *
 * netlink/ opens them through the functions below (--wrap), below a directory of ours. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/util/escape.h"
#include "lib/util/macro.h"
#include "netlink/nbdk.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/promise.h"

#define HOLDERS_MAX 32

static const char *const files[] = {
	"sys/block/nbd0/pid", "sys/block/nbd0/backend", "sys/block/nbd0/size",
	"sys/block/nbd0/ro", "sys/block/nbd0/queue/logical_block_size",
	"sys/block/nbd0/stat", "sys/block/nbd0/dev", "sys/block/nbd0/nbd0p1/dev",
	"sys/block/loop0/loop/backing_file", "proc/self/mountinfo", "proc/swaps",
	"proc/7/comm", "proc/7/mountinfo",
};
static const char *const folders[] = {
	"sys", "sys/block", "sys/block/nbd0", "sys/block/nbd0/queue", "sys/block/nbd0/nbd0p1",
	"sys/block/nbd0/holders", "sys/block/nbd0/holders/dm-0", "sys/block/loop0",
	"sys/block/loop0/loop", "sys/module", "sys/module/nbd", "proc", "proc/self",
	"proc/self/ns", "proc/7", "proc/7/fd", "proc/7/ns", "proc/7/ns/mnt",
};

/* Where the files are; made at the first input and removed at the end. */
static char root[64];

int __real_open(const char *path, int flags, ...);
int __real_openat(int at, const char *path, int flags, ...);
FILE *__real_fopen(const char *path, const char *mode);
int __wrap_open(const char *path, int flags, ...);
int __wrap_openat(int at, const char *path, int flags, ...);
FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_statx(int at, const char *path, int flags, unsigned mask, struct statx *st);

static const char *below(char buf[static 512], const char *path)
{
	if (*path != '/')
		return path;
	snprintf(buf, 512, "%s%s", root, path);
	return buf;
}

int __wrap_open(const char *path, int flags, ...)
{
	char buf[512];

	return __real_open(below(buf, path), flags);
}

int __wrap_openat(int at, const char *path, int flags, ...)
{
	char buf[512];

	return __real_openat(at, below(buf, path), flags);
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
	char buf[512];

	return __real_fopen(below(buf, path), mode);
}

/* /dev/nbd0, /dev/nbd0p1 and what process 7 has open are the devices 43:0 and 43:1. */
int __wrap_statx(int at, const char *path, int flags, unsigned mask, struct statx *st)
{
	size_t len = strlen(path);

	PROMISE(strncmp(path, "/dev/", 5) == 0 || *path != '/');
	*st = (struct statx){ .stx_mode = S_IFBLK, .stx_rdev_major = 43 };
	st->stx_rdev_minor = len && path[len - 1] == '1';
	return 0;
}

static void clean_up(void)
{
	char path[512];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", root, files[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/proc/7/fd/1", root);
	unlink(path);
	for (size_t i = ARRAY_SIZE(folders); i--;) {
		snprintf(path, sizeof(path), "%s/%s", root, folders[i]);
		rmdir(path);
	}
	rmdir(root);
}

static void set_up(void)
{
	char path[512];

	strcpy(root, "/dev/shm/nbdd-fuzz.XXXXXX");
	PROMISE(mkdtemp(root) && atexit(clean_up) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", root, folders[i]);
		PROMISE(mkdir(path, 0700) == 0);
	}
	snprintf(path, sizeof(path), "%s/proc/7/fd/1", root);
	PROMISE(symlink("/dev/nbd0", path) == 0);
}

static void write_file(const char *name, const uint8_t *data, size_t len)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	if (len == 1 && *data == 0xfe) {
		unlink(path);
		return;
	}
	fd = __real_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	PROMISE(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	close(fd);
}

static int count(unsigned index, void *userdata)
{
	PROMISE(index == 0);
	return ++*(int *)userdata > 1 ? -E2BIG : 0;
}

static void check(void)
{
	struct nbdk_holder holders[HOLDERS_MAX];
	struct nbdk_info info = { .pid = -7 };
	size_t n = SIZE_MAX;
	uint64_t value;
	int r = nbdk_sysfs_read(0, &info), devices = 0;

	PROMISE(r <= 0 && (r == 0 || info.pid == -7));
	PROMISE(strnlen(info.backend, sizeof(info.backend)) < sizeof(info.backend));
	(void)!nbdk_queue_get(0, "logical_block_size", &value);
	PROMISE(nbdk_queue_get(0, "../size", &value) == -EINVAL);
	PROMISE(nbdk_foreach(count, &devices) <= 0);
	r = nbdk_holders(0, holders, HOLDERS_MAX, &n);
	PROMISE(r <= 0 && (r < 0 || n <= HOLDERS_MAX));
	for (size_t i = 0; r == 0 && i < n; i++)
		PROMISE(text_is_printable(holders[i].text, strlen(holders[i].text)) &&
			strncmp(holders[i].device, "nbd0", 4) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t at = 0;

	if (!*root)
		set_up();
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		size_t len = 0;

		while (at + len < size && data[at + len] != 0xff)
			len++;
		write_file(files[i], data + at, len);
		at = MIN(at + len + 1, size);
	}
	check();
	return 0;
}
