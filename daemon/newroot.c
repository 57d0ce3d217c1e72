#include "daemon/newroot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/log.h"
#include "lib/util/cleanup.h"

static bool in_initramfs(void)
{
	struct statfs fs;

	return statfs("/", &fs) == 0 &&
	       (fs.f_type == RAMFS_MAGIC || fs.f_type == TMPFS_MAGIC);
}

/* switch_root(8) moves the new root over the old one, which stays ours: paths begin below
 * it.  `..` at a root is the root itself, with what is mounted over it.  Both directories
 * are in use by the system, so that looking them up reads nothing from a disk. */
static bool enter(void)
{
	struct stat old, new;

	if (stat("/", &old) < 0 || stat("/..", &new) < 0 ||
	    (old.st_dev == new.st_dev && old.st_ino == new.st_ino))
		return false;
	if (chroot("/..") < 0 || chdir("/") < 0) {
		log_error("cannot enter the new root: %s", strerror(errno));
		return false;
	}
	log_info("the system has switched its root; following it");
	return true;
}

/* Something was mounted, moved, or unmounted. */
static int on_mounts(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	if (enter())
		sd_event_source_disable_unref(s);
	return 0;
}

int newroot_watch(sd_event *event)
{
	_cleanup_close_ int fd = -1;
	sd_event_source *source;
	int r;

	if (!in_initramfs())
		return 0;
	fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = sd_event_add_io(event, &source, fd, EPOLLPRI, on_mounts, NULL);
	if (r < 0)
		return r;
	sd_event_source_set_io_fd_own(source, true);
	STEAL_FD(fd);
	return 1;
}
