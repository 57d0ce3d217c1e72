#include "daemon/warrant.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/programs.h"
#include "lib/util/cleanup.h"

#define TEXT_MAX	(PROGRAM_PATH_MAX + PROGRAM_USER_MAX + 2)	/* two lines */
#define FILE_NAME_MAX	(sizeof("on-event.") + CONF_NAME_MAX)
#define PATH_ROOM	4096

static bool is_roots(int fd, mode_t type)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type && st.st_uid == 0 &&
	       !(st.st_mode & 022);
}

/* The directory, or -errno. */
static int open_place(const struct manager *m, bool make)
{
	_cleanup_close_ int dir = -1;
	char path[PATH_ROOM];

	if ((size_t)snprintf(path, sizeof(path), "%s" ROOTS_SUFFIX, m->options.runtime_dir) >=
	    sizeof(path))
		return -ENAMETOOLONG;
	if (make && mkdir(path, 0755) < 0 && errno != EEXIST)
		return -errno;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	return is_roots(dir, S_IFDIR) ? STEAL_FD(dir) : -EPERM;
}

static const char *file_name(char to[static FILE_NAME_MAX], const char *device)
{
	snprintf(to, FILE_NAME_MAX, "on-event.%s", device);
	return to;
}

/* "" without a program. */
static void describe(char to[static TEXT_MAX + 1], const struct device_keys *k)
{
	*to = '\0';
	if (k->on_event)
		snprintf(to, TEXT_MAX + 1, "%s\n%s\n", k->on_event, k->on_event_user ?: "");
}

static int write_file(int dir, const char *name, const char *text)
{
	_cleanup_close_ int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW |
					O_CLOEXEC, 0600);
	size_t len = strlen(text);
	ssize_t n = fd < 0 ? -1 : write(fd, text, len);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -ENOSPC;
}

static int put(const struct device *d, const char *text)
{
	_cleanup_close_ int dir = open_place(d->manager, true);
	char name[FILE_NAME_MAX];

	if (dir < 0)
		return dir;
	file_name(name, d->name);
	if (*text)
		return write_file(dir, name, text);
	return unlinkat(dir, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

void warrant_keep(struct device *d)
{
	char text[TEXT_MAX + 1];
	int r;

	describe(text, &d->keys);
	if (d->manager->options.owners.self != 0 || d->unwarranted ||
	    strcmp(text, d->warrant ?: "") == 0)
		return;
	free(d->warrant);
	d->warrant = strdup(text);
	r = put(d, text);
	if (r < 0)
		device_log(d, LOG_WARNING, "cannot write %s" ROOTS_SUFFIX "/on-event.%s: %s; "
			   "the next nbdd runs on-event only as nbdd.conf or nbdtab has it",
			   d->manager->options.runtime_dir, d->name, strerror(-r));
}

void warrant_forget(struct device *d)
{
	if (!d->warrant)
		return;
	if (*d->warrant)
		(void)put(d, "");
	free(d->warrant);
	d->warrant = NULL;
}

bool warrant_covers(const struct manager *m, const struct state *s)
{
	char wanted[TEXT_MAX + 1], text[TEXT_MAX + 1], name[FILE_NAME_MAX];
	_cleanup_close_ int dir = -1, fd = -1;
	ssize_t n;

	if (m->options.owners.self != 0 || !s->keys.on_event)
		return true;
	dir = open_place(m, false);
	if (dir < 0)
		return false;
	fd = openat(dir, file_name(name, s->name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK |
		    O_CLOEXEC);
	if (fd < 0 || !is_roots(fd, S_IFREG))
		return false;
	describe(wanted, &s->keys);
	n = read(fd, text, sizeof(text));
	/* A line is a line. */
	if (strchr(s->keys.on_event, '\n') || strchr(s->keys.on_event_user ?: "", '\n'))
		return false;
	return n == (ssize_t)strlen(wanted) && memcmp(text, wanted, (size_t)n) == 0;
}
