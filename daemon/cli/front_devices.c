/* nbd-client -c and -d: devices that are there. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/conf.h"
#include "daemon/cli/front.h"
#include "daemon/cli/holders.h"
#include "daemon/cli/start.h"
#include "daemon/proto/manager.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "netlink/nbdk.h"

#define ANSWER_USEC	(2 * USEC_PER_SEC)	/* of a daemon that is asked by -c */
#define FLUSH_SECONDS	10

/* `nbd0p1` stands for its disk. */
static bool parse_disk(const char *text, unsigned *ret)
{
	char disk[32];
	const char *digits = strstr(text, "nbd");
	size_t len;

	if (!digits)
		return false;
	len = (size_t)(digits - text) + 3 + strspn(digits + 3, "0123456789");
	if (text[len] && text[len] != 'p')
		return false;
	if (len >= sizeof(disk))
		return false;
	memcpy(disk, text, len);
	disk[len] = '\0';
	return conf_parse_device(disk, ret) == 0;
}

/* ---- -c ---------------------------------------------------------------------------- */

/* The process that really answers: with socket activation the listener is another's. */
static int daemon_pid(const struct front *f)
{
	static const char call[] = "{\"method\":\"org.varlink.service.GetInfo\"}";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_USEC / USEC_PER_SEC };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
	} control = {};
	char data[4096];
	struct iovec iov = { data, sizeof(data) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct cmsghdr *c;
	struct ucred who = {};

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/" MANAGER_SOCKET,
		     f->cli.runtime_dir) >= (int)sizeof(address.sun_path) || fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    send(fd, call, sizeof(call), MSG_NOSIGNAL) < 0 ||
	    recvmsg(fd, &m, MSG_CMSG_CLOEXEC) <= 0)
		return 0;
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS &&
	    c->cmsg_len == CMSG_LEN(sizeof(who)))
		memcpy(&who, CMSG_DATA(c), sizeof(who));
	return who.pid;
}

/* The kernel's pid is of whoever connected the device, who may have handed it on since:
 * what scripts are to spare is the daemon that keeps it. */
static int keeper(const struct front *f, const struct nbdk_info *info)
{
	bool ours = strncmp(info->backend, "nbdd:", 5) == 0;
	int pid = 0;

	if (ours || kill(info->pid, 0) < 0)
		pid = daemon_pid(f);
	return pid ? pid : info->pid;
}

int front_check(struct front *f)
{
	struct nbdk_info info;
	unsigned index;

	if (!parse_disk(f->devices[0], &index) || nbdk_sysfs_read(index, &info) < 0 ||
	    !info.connected)
		return 1;
	printf("%d\n", keeper(f, &info));
	return 0;
}

/* ---- -d ---------------------------------------------------------------------------- */

struct disconnect {
	const struct front *f;
	const char *device;
	bool unknown;			/* to the daemon */
	bool held;
	bool held_for_good;		/* by more than open files, as far as is to be seen */
	bool unseen;			/* nobody was found who holds it */
};

static bool only_processes(struct json_object *params)
{
	size_t n = holders_count(params);
	char kind[CLI_TEXT_MAX];

	for (size_t i = 0; i < n; i++)
		if (strcmp(member_text(kind, json_object_array_get_idx(
				member(params, "holders"), i), "kind"), "process") != 0)
			return false;
	return n > 0;
}

/* What is no error here, or will be tried in another way. */
static bool on_error(const char *error, struct json_object *params, void *userdata)
{
	struct disconnect *d = userdata;

	d->unknown = strcmp(error, MANAGER_ERROR("NoSuchDevice")) == 0;
	d->held = strcmp(error, MANAGER_ERROR("DeviceHeld")) == 0;
	if (d->held && !holders_count(params) && !d->unseen)
		return d->unseen = true;	/* once more: they may just have ended */
	d->held_for_good = d->held && !only_processes(params);
	return d->unknown || (d->held && !d->held_for_good);
}

static int on_detached(struct json_object *params, void *userdata)
{
	struct disconnect *d = userdata;

	d->held = false;
	return 0;
}

static int detach(struct disconnect *d, bool force)
{
	struct json_object *params = cli_must(json_object_new_object());

	json_object_object_add(params, "device",
			       cli_must(json_object_new_string(d->device)));
	if (force)
		json_object_object_add(params, "force", json_object_new_boolean(true));
	return manager_call(&d->f->cli, &(struct manager_request){
		.method = "Detach", .params = params, .reply = on_detached,
		.error = on_error, .userdata = d });
}

/* What programs have written through the page cache reaches the server first.  The child is
 * left behind when the server does not answer. */
static void flush(unsigned index)
{
	char path[32];
	pid_t pid = fork();

	if (pid == 0) {
		int fd;

		snprintf(path, sizeof(path), "/dev/nbd%u", index);
		alarm(FLUSH_SECONDS);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		_exit(fd < 0 || fsync(fd) < 0);
	}
	for (unsigned i = 0; pid > 0 && i < FLUSH_SECONDS * 100; i++) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return;
		usleep(USEC_PER_SEC / 100);
	}
}

/* A device that no daemon keeps. */
static int disconnect_kernel(const struct front *f, unsigned index)
{
	struct nbdk_info info;
	struct nbdk *k;
	int r = nbdk_sysfs_read(index, &info);

	if (r < 0)
		return front_error(f, "/dev/nbd%u: there is no such device", index);
	if (!info.connected)
		return 0;
	flush(index);
	r = nbdk_open(&k);
	if (r >= 0) {
		r = nbdk_kernel_ops.disconnect(k, index);
		nbdk_close(k);
	}
	return r < 0 ? front_error(f, "/dev/nbd%u is not disconnected: %s", index,
				   strerror(-r)) : 0;
}

/* nbd-client would also cut off what is mounted or swapped on; that takes `nbdctl detach
 * --force` here.  An open file alone is no reason to stay. */
static int disconnect_one(struct front *f, const char *text)
{
	struct disconnect d = { .f = f, .device = text };
	unsigned index;
	int r;

	if (conf_parse_device(text, &index) < 0)
		return front_error(f, "'%s' is not a device: /dev/nbdN is expected", text);
	if (cli_find_daemon(&f->cli) < 0)
		return disconnect_kernel(f, index);
	r = detach(&d, false);
	if (d.held && d.unseen)
		r = detach(&d, false);
	if (d.unknown)
		return disconnect_kernel(f, index);
	if (d.held && !d.held_for_good) {
		flush(index);
		r = detach(&d, true);
	}
	return r == CLI_OK || d.unknown ? 0 : 1;
}

int front_disconnect(struct front *f)
{
	int status = 0;

	for (size_t i = 0; i < f->n_devices; i++)
		status |= disconnect_one(f, f->devices[i]);
	return status;
}
