#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

#define PATH_ROOM	4096
#define LOOK_MSEC	20
#define ALIVE_USEC	(500 * USEC_PER_MSEC)	/* a child may hold it for a moment, too */
#define DYING_USEC	(30 * USEC_PER_SEC)

/* proc(5): the state follows the name, which ends with the last parenthesis. */
static bool is_alive(pid_t pid)
{
	_cleanup_close_ int fd = -1;
	char path[64], text[512], *end;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	end = strrchr(text, ')');
	return end && end[1] && end[2] != 'Z' && end[2] != 'X';
}

int lock_holder(int fd)
{
	char text[16] = "";
	int pid = pread(fd, text, sizeof(text) - 1, 0) <= 0 ? 0 : atoi(text);

	return pid > 0 && is_alive(pid) ? pid : 0;
}

static int wait_for_lock(int fd)
{
	uint64_t since = now_usec();

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		uint64_t waited = now_usec() - since;

		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (waited > DYING_USEC || (waited > ALIVE_USEC && lock_holder(fd)))
			return -EBUSY;
		poll(NULL, 0, LOOK_MSEC);
	}
	return 0;
}

int lock_make_directory(const char *dir)
{
	if (mkdir(dir, 0755) == 0 || errno == EEXIST)
		return 0;
	log_error("cannot make %s: %s", dir, strerror(errno));
	return -errno;
}

int lock_take(const char *dir)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_ROOM];
	int r;

	snprintf(path, sizeof(path), "%s/lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		log_error("cannot open %s: %s", path, strerror(errno));
		return -errno;
	}
	r = wait_for_lock(fd);
	if (r < 0) {
		log_error("another nbdd runs with %s", dir);
		return r;
	}
	lock_sign(fd);
	return STEAL_FD(fd);
}

void lock_sign(int fd)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	/* With a full file system the next daemon only waits longer, or not at all; what is
	 * there has its room. */
	if (pwrite(fd, text, (size_t)len, 0) != len || ftruncate(fd, len) < 0)
		log_debug("cannot write the lock file: %s", strerror(errno));
}
