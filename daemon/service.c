#include "daemon/service.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/log.h"
#include "lib/util/cleanup.h"

/* ---- its side ---------------------------------------------------------------------- */

int service_open(struct service *ret)
{
	int n = sd_listen_fds(true);
	const struct passwd *user;

	if (n != 1 || sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, NULL, 0) <= 0) {
		log_error("expected one listening Unix socket (SOCK_SEQPACKET) from systemd, got "
			  "%d descriptors: start the .socket unit instead", n < 0 ? 0 : n);
		return -EINVAL;
	}
	user = getpwnam(SERVICE_USER);
	*ret = (struct service){ .listen = SD_LISTEN_FDS_START, .user = user ? user->pw_uid : 0 };
	return fd_set_nonblock(ret->listen, true);
}

int service_accept(const struct service *s)
{
	_cleanup_close_ int fd = accept4(s->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (fd < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	if (peer.uid != 0 && peer.uid != s->user) {
		log_warning("user %u (process %d) has connected, expected root or " SERVICE_USER
			    ": turned away", peer.uid, (int)peer.pid);
		return -EPERM;
	}
	return STEAL_FD(fd);
}

/* ---- nbdd's side ------------------------------------------------------------------- */

static int find_address(const char *runtime_dir, const char *name, struct sockaddr_un *ret)
{
	int n;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s-%s", runtime_dir, name);
	return n < 0 || (size_t)n >= sizeof(ret->sun_path) ? -ENAMETOOLONG : 0;
}

int service_connect(const char *runtime_dir, const char *name)
{
	_cleanup_close_ int fd = -1;
	struct sockaddr_un address;
	int r = find_address(runtime_dir, name, &address);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return STEAL_FD(fd);
}

bool service_is_there(const char *runtime_dir, const char *name, int error)
{
	struct sockaddr_un address;

	return (!error || error == -ENOENT) &&
	       find_address(runtime_dir, name, &address) >= 0 &&
	       access(address.sun_path, F_OK) == 0;
}
