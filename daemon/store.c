#include "daemon/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon/owner.h"
#include "daemon/state.h"
#include "lib/util/cleanup.h"

#define PAGE		4096u
#define NAME_ROOM	(CONF_NAME_MAX + 2)

struct store {
	int dir;
	struct owners owners;
};

struct copy {
	int fd;				/* -1: not open */
	size_t size;			/* bytes that it has and that are reserved; 0: not known */
	void *held;			/* HELD_SIZE bytes of it */
	size_t held_size;
};

#define COPY_NULL ((struct copy){ .fd = -1 })

struct store_file {
	struct copy now, spare;
};

/* What a daemon before us has left half done. */
static void sweep(struct store *s)
{
	struct dirent **entries;
	int n = scandirat(s->dir, ".", &entries, NULL, NULL);

	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] == '.')
			unlinkat(s->dir, entries[i]->d_name, 0);	/* `.` stays */
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

int store_open(const char *runtime_dir, const struct owners *owners, struct store **ret)
{
	_cleanup_close_ int dir = -1;
	char path[4096];
	struct stat st;
	struct store *s;

	snprintf(path, sizeof(path), "%s/" STORE_DIR, runtime_dir);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || fstat(dir, &st) < 0)
		return -errno;
	if (!owners_have(owners, st.st_uid) || st.st_mode & 022)
		return -EPERM;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->dir = STEAL_FD(dir);
	s->owners = *owners;
	sweep(s);
	*ret = s;
	return 0;
}

void store_free(struct store *s)
{
	if (!s)
		return;
	fd_close(s->dir);
	free(s);
}

/* ---- writing ----------------------------------------------------------------------- */

static void let_go(struct copy *c)
{
	if (c->held)
		munmap(c->held, c->held_size);
	c->held = NULL;
	c->held_size = 0;
}

static void copy_close(struct copy *c)
{
	let_go(c);
	fd_close(c->fd);
	*c = COPY_NULL;
}

/* What is in a tmpfs may be swapped out, also to a device that is away when it is to be written
 * again, and then a write waits for it to be read first.  What is mapped is locked
 * (power_hold_memory); where it cannot be, it is written all the same. */
static void hold(struct copy *c, size_t size)
{
	void *p;

	if (c->held_size == size)
		return;
	let_go(c);
	p = mmap(NULL, size, PROT_READ, MAP_SHARED, c->fd, 0);
	if (p == MAP_FAILED)
		return;
	madvise(p, size, MADV_DONTFORK);
	c->held = p;
	c->held_size = size;
}

static void spare_name(char to[static NAME_ROOM], const char *name)
{
	snprintf(to, NAME_ROOM, ".%s", name);
}

static int open_spare(struct store *s, const char *name, struct store_file *f)
{
	char spare[NAME_ROOM];

	if (f->spare.fd >= 0)
		return 0;
	spare_name(spare, name);
	f->spare = COPY_NULL;
	f->spare.fd = openat(s->dir, spare, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return f->spare.fd < 0 ? -errno : 0;
}

static size_t whole_pages(size_t len)
{
	return (len + PAGE - 1) / PAGE * PAGE;
}

/* Room before anything is written; a file system that cannot promise any gets on without. */
static int reserve(struct copy *c, size_t len)
{
	if (c->size < len && fallocate(c->fd, 0, 0, (off_t)len) < 0 && errno != EOPNOTSUPP &&
	    errno != ENOSYS)
		return -errno;
	hold(c, len);
	return 0;
}

static int put(struct copy *c, const char *text, size_t len)
{
	size_t all = whole_pages(len);
	char filling[PAGE];
	struct iovec parts[] = { { (void *)text, len }, { filling, all - len } };
	ssize_t n;
	int r = reserve(c, all);

	if (r < 0)
		return r;
	memset(filling, '\n', sizeof(filling));
	n = pwritev(c->fd, parts, ARRAY_SIZE(parts), 0);
	if (n != (ssize_t)all)
		return n < 0 ? -errno : -ENOSPC;
	if (c->size != all && ftruncate(c->fd, (off_t)all) < 0)
		return -errno;
	c->size = all;
	return 0;
}

/* The spare file gets the name that counts. */
static int exchange(struct store *s, const char *name, struct store_file *f)
{
	char spare[NAME_ROOM];
	struct copy written = f->spare;

	spare_name(spare, name);
	if (renameat2(s->dir, spare, s->dir, name, RENAME_EXCHANGE) == 0) {
		f->spare = f->now;
	} else if (renameat(s->dir, spare, s->dir, name) == 0) {	/* the first time */
		copy_close(&f->now);
		f->spare = COPY_NULL;
	} else {
		return -errno;
	}
	f->now = written;
	return 0;
}

int store_write(struct store *s, const char *name, const char *text, size_t len,
		struct store_file **f)
{
	int r;

	if (!*f) {
		*f = malloc(sizeof(**f));
		if (!*f)
			return -ENOMEM;
		**f = (struct store_file){ .now = COPY_NULL, .spare = COPY_NULL };
	}
	r = open_spare(s, name, *f);
	if (r >= 0)
		r = put(&(*f)->spare, text, len);
	if (r >= 0)
		r = exchange(s, name, *f);
	if (r == -ENOENT)
		copy_close(&(*f)->spare);	/* somebody has removed it */
	if (r < 0)
		return r;
	/* For the next time; when that fails now it is tried again then. */
	if ((*f)->spare.fd < 0 && open_spare(s, name, *f) == 0)
		(void)reserve(&(*f)->spare, whole_pages(len));
	return 0;
}

void store_file_free(struct store_file *f)
{
	if (!f)
		return;
	copy_close(&f->now);
	copy_close(&f->spare);
	free(f);
}

int store_remove(struct store *s, const char *name, struct store_file *f)
{
	char spare[NAME_ROOM];
	int r;

	spare_name(spare, name);
	r = unlinkat(s->dir, name, 0) == 0 ? 1 : errno == ENOENT ? 0 : -errno;
	unlinkat(s->dir, spare, 0);
	store_file_free(f);
	return r;
}

/* ---- reading ----------------------------------------------------------------------- */

static ssize_t read_file(struct store *s, const char *name, char *text)
{
	_cleanup_close_ int fd = openat(s->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
					O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0 && errno == ELOOP)
		return -EPERM;
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !owners_have(&s->owners, st.st_uid) || st.st_mode & 022)
		return -EPERM;
	n = read(fd, text, STATE_TEXT_MAX + 1);
	if (n < 0)
		return -errno;
	return n > (ssize_t)STATE_TEXT_MAX ? -EFBIG : n;
}

/* A list first: what FN does may change the directory. */
static int list_files(struct store *s, struct dirent ***ret)
{
	int n = scandirat(s->dir, ".", ret, NULL, alphasort);

	return n < 0 ? -errno : n;
}

int store_foreach(struct store *s, store_fn fn, void *userdata)
{
	struct dirent **entries;
	int n = list_files(s, &entries);
	char *text;

	if (n < 0)
		return n;
	text = malloc(STATE_TEXT_MAX + 1);
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;
		ssize_t len;

		if (name[0] != '.' && text && i < STORE_FILES_MAX) {
			len = read_file(s, name, text);
			fn(name, len < 0 ? NULL : text, len < 0 ? 0 : (size_t)len,
			   len < 0 ? (int)len : 0, userdata);
		}
		free(entries[i]);
	}
	free(entries);
	free(text);
	return text ? 0 : -ENOMEM;
}
