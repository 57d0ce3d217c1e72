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
#define FLUSH_CLAIMED	2		/* a child's exit status */

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

static bool is_ours(const struct nbdk_info *info)
{
	return strncmp(info->backend, "nbdd:", 5) == 0;
}

/* The kernel's pid is of whoever connected the device, who may have handed it on since:
 * what scripts are to spare is the daemon that keeps it. */
static int keeper(const struct front *f, const struct nbdk_info *info)
{
	int pid = 0;

	if (is_ours(info) || kill(info->pid, 0) < 0)
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
	bool held_for_good;		/* claimed, or by more than open files */
	bool unseen;			/* nobody was found who holds it */
};

/* What is no error here, or will be tried in another way. */
static bool on_error(const char *error, struct json_object *params, void *userdata)
{
	struct disconnect *d = userdata;

	d->unknown = strcmp(error, MANAGER_ERROR("NoSuchDevice")) == 0;
	d->held = strcmp(error, MANAGER_ERROR("DeviceHeld")) == 0;
	if (d->held && !holders_count(params) && !d->unseen)
		return d->unseen = true;	/* once more: they may just have ended */
	d->held_for_good = d->held && (member_bool(params, "claimed") ||
				       !holders_only_processes(params));
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
 * left behind when the server does not answer.  False: a mount, or whoever else asks for the
 * device alone (block(9)), has it, found or not. */
static bool flush(unsigned index)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		char path[32];
		int fd;

		snprintf(path, sizeof(path), "/dev/nbd%u", index);
		alarm(FLUSH_SECONDS);
		fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
		if (fd < 0 && errno == EBUSY)
			_exit(FLUSH_CLAIMED);
		_exit(fd < 0 || fsync(fd) < 0);
	}
	for (unsigned i = 0; pid > 0 && i < FLUSH_SECONDS * 100; i++) {
		if (waitpid(pid, &status, WNOHANG) != 0)
			return !WIFEXITED(status) || WEXITSTATUS(status) != FLUSH_CLAIMED;
		usleep(USEC_PER_SEC / 100);
	}
	return true;
}

static int stays(const struct front *f, unsigned index, struct json_object *params)
{
	front_error(f, "/dev/nbd%u is in use and stays connected:", index);
	if (!params || !holders_print(params))
		fputs("  it is mounted, or part of something, where that is not to be seen\n",
		      stderr);
	return 1;
}

static int flush_and_disconnect(const struct front *f, unsigned index)
{
	struct nbdk *k;
	int r;

	if (!flush(index))
		return stays(f, index, NULL);
	r = nbdk_open(&k);
	if (r >= 0) {
		r = nbdk_kernel_ops.disconnect(k, index);
		nbdk_close(k);
	}
	return r < 0 ? front_error(f, "/dev/nbd%u is not disconnected: %s", index,
				   strerror(-r)) : 0;
}

/* A device that no daemon keeps: nobody but us looks who uses it. */
static int disconnect_kernel(const struct front *f, unsigned index)
{
	struct json_object *params;
	struct nbdk_info info;
	char path[32];
	int r = nbdk_sysfs_read(index, &info);

	if (r < 0)
		return front_error(f, "/dev/nbd%u: there is no such device", index);
	if (!info.connected)
		return 0;
	snprintf(path, sizeof(path), "/dev/nbd%u", index);
	params = cli_must(json_object_new_object());
	json_object_object_add(params, "device", cli_must(json_object_new_string(path)));
	holders_find(params);
	r = holders_count(params) && !holders_only_processes(params) ?
	    stays(f, index, params) : flush_and_disconnect(f, index);
	json_object_put(params);
	return r;
}

/* A daemon that is only being restarted takes its devices up again. */
static bool find_daemon(const struct front *f, unsigned index, uint64_t deadline_usec)
{
	struct nbdk_info info;
	bool kept = nbdk_sysfs_read(index, &info) >= 0 && info.connected && is_ours(&info);

	return cli_await_daemon(&f->cli, kept ? deadline_usec : 0) >= 0;
}

/* nbd-client would also cut off what is mounted or swapped on; that takes `nbdctl detach
 * --force` here.  An open file alone is no reason to stay, unless it was opened as a mount
 * opens it. */
static int disconnect_one(struct front *f, const char *text, uint64_t deadline_usec)
{
	struct disconnect d = { .f = f, .device = text };
	unsigned index;
	int r;

	if (conf_parse_device(text, &index) < 0)
		return front_error(f, "'%s' is not a device: /dev/nbdN is expected", text);
	if (!find_daemon(f, index, deadline_usec))
		return disconnect_kernel(f, index);
	r = detach(&d, false);
	if (d.held && d.unseen)
		r = detach(&d, false);
	if (d.unknown)
		return disconnect_kernel(f, index);
	if (d.held && !d.held_for_good) {
		if (!flush(index))
			return stays(f, index, NULL);
		r = detach(&d, true);
	}
	return r == CLI_OK || d.unknown ? 0 : 1;
}

int front_disconnect(struct front *f)
{
	uint64_t deadline_usec = now_usec() + CLI_AGAIN_USEC;
	int status = 0;

	for (size_t i = 0; i < f->n_devices; i++)
		status |= disconnect_one(f, f->devices[i], deadline_usec);
	return status;
}
