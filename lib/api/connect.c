#include "lib/api/call.h"

#include <linux/vm_sockets.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/un.h>

#include "lib/io/resolve.h"
#include "lib/util/cleanup.h"

#define ADDRESSES_MESSAGE_MAX 128

/* What get_uri is to tell of the way this handle connects. */
static struct nbdd_uri *new_target(struct nbd_handle *h, int transport)
{
	struct nbdd_uri *u = calloc(1, sizeof(*u));

	if (!u) {
		session_error(h, ENOMEM, "no memory for an address");
		return NULL;
	}
	u->transport = transport;
	uri_free(h->target);
	h->target = u;
	return u;
}

/* The sync form of a connecting call. */
static int run(struct nbd_handle *h, int begun)
{
	return begun < 0 ? -1 : session_wait_connected(h);
}

/* 0, or -1 and what is wrong in MESSAGE. */
static int check_addresses(const struct nbdd_address *addresses, size_t n,
			   char message[static ADDRESSES_MESSAGE_MAX])
{
	if (!n || n > DIAL_ADDRESSES_MAX) {
		snprintf(message, ADDRESSES_MESSAGE_MAX, "%zu addresses, expected 1 to %d", n,
			 DIAL_ADDRESSES_MAX);
		return -1;
	}
	for (size_t i = 0; i < n; i++)
		if (addresses[i].len > sizeof(addresses[i].addr)) {
			snprintf(message, ADDRESSES_MESSAGE_MAX,
				 "address %zu has %u bytes, at most %zu are allowed", i,
				 (unsigned)addresses[i].len, sizeof(addresses[i].addr));
			return -1;
		}
	return 0;
}

int api_aio_connect_addresses(struct nbd_handle *h, const struct nbdd_address *addresses,
			      size_t n)
{
	char message[ADDRESSES_MESSAGE_MAX];

	if (check_addresses(addresses, n, message) < 0)
		return session_error(h, EINVAL, "%s", message);
	return session_dial(h, addresses, n);
}

int api_dial(const struct nbdd_address *addresses, size_t n)
{
	char message[ADDRESSES_MESSAGE_MAX];
	int r;

	if (check_addresses(addresses, n, message) < 0) {
		error_set("nbdd_dial", EINVAL, "%s", message);
		return -1;
	}
	r = dial_blocking(addresses, n);
	if (r >= 0)
		return r;
	error_set("nbdd_dial", -r, "connect");
	return -1;
}

int api_dial_several(const struct nbdd_address *addresses, size_t n, int *fds, size_t nr_fds,
		     int late)
{
	uint64_t late_usec = late < 0 ? USEC_INFINITY : (uint64_t)late * USEC_PER_MSEC;
	char message[ADDRESSES_MESSAGE_MAX];

	if (check_addresses(addresses, n, message) < 0) {
		error_set("nbdd_dial_several", EINVAL, "%s", message);
		return -1;
	}
	if (!nr_fds || nr_fds > DIAL_SEVERAL_MAX) {
		error_set("nbdd_dial_several", EINVAL, "%zu connections, expected 1 to %d", nr_fds,
			  DIAL_SEVERAL_MAX);
		return -1;
	}
	return (int)dial_several(addresses, n, fds, nr_fds, late_usec);
}

int api_connect_addresses(struct nbd_handle *h, const struct nbdd_address *addresses, size_t n)
{
	return run(h, api_aio_connect_addresses(h, addresses, n));
}

/* Name a numeric address for get_uri. */
static int target_from_address(struct nbd_handle *h, const struct sockaddr *addr, socklen_t len)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];
	struct nbdd_uri *u;

	switch (addr->sa_family) {
	case AF_UNIX:
		u = new_target(h, NBDD_TRANSPORT_UNIX);
		return u && (u->socket_path = call_copy_string(h,
				((const struct sockaddr_un *)addr)->sun_path)) ? 0 : -1;
	case AF_INET:
	case AF_INET6:
		if (getnameinfo(addr, len, host, sizeof(host), port, sizeof(port),
				NI_NUMERICHOST | NI_NUMERICSERV) != 0)
			return 0;
		u = new_target(h, NBDD_TRANSPORT_TCP);
		return u && (u->host = call_copy_string(h, host)) &&
		       (u->port = call_copy_string(h, port)) ? 0 : -1;
	default:
		return 0;
	}
}

int api_aio_connect(struct nbd_handle *h, const struct sockaddr *addr, socklen_t addrlen)
{
	struct nbdd_address a = { .len = addrlen };

	if (addrlen > sizeof(a.addr))
		return session_error(h, ENAMETOOLONG, "socket address has %u bytes, at most %zu "
				     "are allowed", (unsigned)addrlen, sizeof(a.addr));
	memcpy(&a.addr, addr, addrlen);
	if (target_from_address(h, (const struct sockaddr *)&a.addr, addrlen) < 0)
		return -1;
	return session_dial(h, &a, 1);
}

int api_aio_connect_unix(struct nbd_handle *h, const char *unixsocket)
{
	struct nbdd_address a;
	struct nbdd_uri *u;
	int r = unix_address(unixsocket, &a);

	if (r == -ENAMETOOLONG)
		return session_error(h, ENAMETOOLONG, "socket name too long: %s", unixsocket);
	if (r < 0)
		return session_error(h, -r, "socket name is empty");
	u = new_target(h, NBDD_TRANSPORT_UNIX);
	if (!u || !(u->socket_path = call_copy_string(h, unixsocket)))
		return -1;
	return session_dial(h, &a, 1);
}

int api_connect_unix(struct nbd_handle *h, const char *unixsocket)
{
	return run(h, api_aio_connect_unix(h, unixsocket));
}

int api_aio_connect_vsock(struct nbd_handle *h, uint32_t cid, uint32_t port)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	struct nbdd_address a = { .len = sizeof(vm) };
	struct nbdd_uri *u = new_target(h, NBDD_TRANSPORT_VSOCK);

	if (!u)
		return -1;
	u->vsock_cid = cid;
	u->vsock_port = port;
	memcpy(&a.addr, &vm, sizeof(vm));
	return session_dial(h, &a, 1);
}

int api_connect_vsock(struct nbd_handle *h, uint32_t cid, uint32_t port)
{
	return run(h, api_aio_connect_vsock(h, cid, port));
}

int api_supports_vsock(struct nbd_handle *h)
{
	return 1;
}

int api_aio_connect_tcp(struct nbd_handle *h, const char *hostname, const char *port)
{
	_cleanup_free_ struct nbdd_address *addresses = NULL;
	struct nbdd_uri *u;
	size_t n = 0;
	int r;

	r = resolve(hostname, port, &addresses, &n);
	if (r != 0)
		return session_error(h, r == EAI_SYSTEM ? errno : 0,
				     "getaddrinfo: hostname \"%s\" port \"%s\": %s", hostname,
				     port, gai_strerror(r));
	u = new_target(h, NBDD_TRANSPORT_TCP);
	if (!u || !(u->host = call_copy_string(h, hostname)) ||
	    !(u->port = call_copy_string(h, port)))
		return -1;
	return session_dial(h, addresses, n);
}

int api_connect_tcp(struct nbd_handle *h, const char *hostname, const char *port)
{
	return run(h, api_aio_connect_tcp(h, hostname, port));
}

int api_aio_connect_socket(struct nbd_handle *h, int sock)
{
	return session_attach(h, sock);
}

int api_connect_socket(struct nbd_handle *h, int sock)
{
	return run(h, api_aio_connect_socket(h, sock));
}

static int check_argv(struct nbd_handle *h, char **argv)
{
	if (!argv[0])
		return session_error(h, EINVAL, "missing command name in argv list");
	return 0;
}

int api_aio_connect_command(struct nbd_handle *h, char **argv)
{
	int fd, r;

	if (check_argv(h, argv) < 0)
		return -1;
	r = process_start(&h->process, argv, &fd);
	if (r < 0)
		return session_error(h, -r, "starting %s", argv[0]);
	if (session_attach(h, fd) < 0) {
		fd_close(fd);
		process_stop(&h->process);
		return -1;
	}
	return 0;
}

int api_connect_command(struct nbd_handle *h, char **argv)
{
	return run(h, api_aio_connect_command(h, argv));
}

int api_aio_connect_systemd_socket_activation(struct nbd_handle *h, char **argv)
{
	const char *name = h->settings.activation_name;
	struct nbdd_address a;
	struct nbdd_uri *u;
	int r;

	if (check_argv(h, argv) < 0)
		return -1;
	r = process_activate(&h->process, argv, name ? name : "");
	if (r == 0)
		r = unix_address(h->process.socket_path, &a);
	if (r < 0)
		return session_error(h, -r, "starting %s", argv[0]);
	u = new_target(h, NBDD_TRANSPORT_UNIX);
	if (!u || !(u->socket_path = call_copy_string(h, h->process.socket_path)))
		return -1;
	return session_dial(h, &a, 1);
}

int api_connect_systemd_socket_activation(struct nbd_handle *h, char **argv)
{
	return run(h, api_aio_connect_systemd_socket_activation(h, argv));
}
