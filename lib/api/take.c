/* The socket is given up: another goes on where this session stops. */
#include "lib/api/call.h"

#include <sys/ioctl.h>

#include "lib/io/tls.h"

/* Is the connection alive and without a byte that nobody has read? */
static int check_quiet(struct nbd_handle *h)
{
	size_t kept = h->rx.carry_len + h->rx.left;
	int unread = 0;
	char byte;
	ssize_t r;

	/* A vsock does not know; what follows sees it, too. */
	if (ioctl(h->transport.fd, FIONREAD, &unread) < 0)
		unread = 0;
	if (unread || kept)
		return session_error(h, EPROTO, "server sent %zu bytes that nobody asked for",
				     (size_t)unread + kept);
	r = recv(h->transport.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (r == 0)
		return session_error(h, ENOTCONN, "server disconnected");
	if (r > 0)
		return session_error(h, EPROTO, "server sent bytes that nobody asked for");
	if (errno != EAGAIN && errno != EINTR)
		return session_error(h, errno, "recv");
	return 0;
}

/* The kernel's nbd driver goes on where this session stops: nothing may be under way, and
 * it speaks compact requests and simple replies only. */
static int check_rest(struct nbd_handle *h)
{
	if (atomic_load(&h->in_flight) || tx_pending(&h->tx) || h->disconnecting)
		return session_error(h, EBUSY, "%u requests are in flight, expected none",
				     atomic_load(&h->in_flight));
	if (h->export.structured_replies || h->export.extended_headers)
		return session_error(h, ENOTSUP, "structured replies or extended headers were "
				     "negotiated, the kernel knows simple replies only");
	return 0;
}

int api_take_socket(struct nbd_handle *h)
{
	int fd;

	if (check_rest(h) < 0)
		return -1;
	if (h->export.tls)
		return session_error(h, ENOTSUP, "TLS is active");
	if (check_quiet(h) < 0)
		return -1;
	fd = h->transport.fd;
	h->transport = TRANSPORT_NULL;
	session_closed(h);
	return fd;
}

int api_take_tls_socket(struct nbd_handle *h, struct nbdd_tls_state *ret)
{
	char message[TLS_MESSAGE_MAX];
	struct nbdd_tls_state state = {};
	int fd, r;

	if (check_rest(h) < 0)
		return -1;
	if (!h->export.tls)
		return session_error(h, ENOTSUP, "TLS is not active");
	r = tls_settle(&h->transport, message);
	if (r < 0)
		return session_error(h, -r, "%s", message);
	if (check_quiet(h) < 0)
		return -1;
	r = tls_state(&h->transport, &state, message);
	if (r < 0)
		return session_error(h, -r, "%s", message);
	fd = tls_abandon(&h->transport);
	h->transport = TRANSPORT_NULL;
	session_closed(h);
	*ret = state;
	explicit_bzero(&state, sizeof(state));
	return fd;
}
