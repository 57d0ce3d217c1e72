/* Connecting the socket: h->dial until it is there. */
#include <errno.h>

#include "lib/io/uri.h"
#include "lib/session/session.h"
#include "lib/util/fd.h"

/* All addresses failed.  TCP leaves the handle as it was created: another may be tried;
 * for others the one address was all there is. */
static int failed(struct nbd_handle *h, int error)
{
	const struct nbdd_uri *t = h->target;

	if (!t || t->transport != NBDD_TRANSPORT_TCP) {
		session_error(h, error, "connect");
		return session_die(h);
	}
	session_error(h, error, "connect: %s:%s: could not connect to remote host", t->host,
		      t->port);
	dial_free(STEAL_PTR(h->dial));
	uri_free(STEAL_PTR(h->target));
	atomic_store(&h->phase, PHASE_CREATED);
	session_update_direction(h);
	return -1;
}

int dialling_step(struct nbd_handle *h, const struct pollfd *ready)
{
	int family, fd = dial_step(h->dial, ready, &family);

	if (fd == -EAGAIN) {
		session_update_direction(h);
		return 0;
	}
	if (fd < 0)
		return failed(h, -fd);
	dial_free(STEAL_PTR(h->dial));
	if (transport_plain_own(&h->transport, fd, family) < 0) {
		session_error(h, errno, "ioctl: FIONBIO");
		fd_close(fd);
		return session_die(h);
	}
	session_attached(h);
	return 0;
}

int session_dial(struct nbd_handle *h, const struct nbdd_address *a, size_t n)
{
	h->dial = dial_new(a, n);
	if (!h->dial)
		return session_error(h, ENOMEM, "no memory for %zu addresses", n);
	atomic_store(&h->phase, PHASE_CONNECTING);
	return dialling_step(h, NULL);
}
