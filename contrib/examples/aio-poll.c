/* aio-poll URI: read a whole export with many requests in flight, in a loop of one's own.
 *
 * This is how the library fits into a program that has an event loop already: ask for the
 * descriptor and for what to wait, wait, and tell the library what has happened.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUESTS 64		/* in flight at a time */
#define REQUEST_SIZE 65536

struct slot {
	char buf[REQUEST_SIZE];		/* must live until the request is complete */
	int busy;
	uint64_t *sum;
	size_t len;
};

static void fail(const char *what)
{
	fprintf(stderr, "aio-poll: %s\n", what);
	exit(EXIT_FAILURE);
}

/* A request is complete.  Called from nbd_aio_notify_*, with the handle locked: no call of
 * the same handle may be made here. */
static int on_complete(void *user_data, int *error)
{
	struct slot *slot = user_data;

	if (*error)
		fail("a read has failed");
	for (size_t i = 0; i < slot->len; i++)
		*slot->sum += (unsigned char)slot->buf[i];
	slot->busy = 0;
	return 1;		/* forget the request: nobody asks for its result */
}

/* Wait until the socket is ready, and have the library go on. */
static void step(struct nbd_handle *h)
{
	unsigned direction = nbd_aio_get_direction(h);
	struct pollfd fd = { .fd = nbd_aio_get_fd(h) };
	int r = 0;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		fd.events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		fd.events |= POLLOUT;
	if (poll(&fd, 1, -1) == -1)
		fail("poll");
	/* One of the two at a time: after it the direction may be another one. */
	if (fd.revents & (POLLIN | POLLHUP | POLLERR))
		r = nbd_aio_notify_read(h);
	else if (fd.revents & POLLOUT)
		r = nbd_aio_notify_write(h);
	if (r == -1)
		fail(nbd_get_error());
}

int main(int argc, char **argv)
{
	static struct slot slots[REQUESTS];
	struct nbd_handle *h = nbd_create();
	uint64_t at = 0, size, sum = 0;

	if (argc != 2)
		fail("usage: aio-poll URI");
	if (!h || nbd_aio_connect_uri(h, argv[1]) == -1)
		fail(nbd_get_error());
	while (nbd_aio_is_connecting(h))
		step(h);
	size = (uint64_t)nbd_get_size(h);

	while (at < size || nbd_aio_in_flight(h) > 0) {
		for (int i = 0; i < REQUESTS && at < size; i++) {
			struct slot *slot = &slots[i];
			nbd_completion_callback callback = { .callback = on_complete,
							     .user_data = slot };

			if (slot->busy)
				continue;
			slot->busy = 1;
			slot->sum = &sum;
			slot->len = size - at < REQUEST_SIZE ? size - at : REQUEST_SIZE;
			if (nbd_aio_pread(h, slot->buf, slot->len, at, callback, 0) == -1)
				fail(nbd_get_error());
			at += slot->len;
		}
		step(h);
	}
	printf("%" PRIu64 " bytes, sum %" PRIu64 "\n", size, sum);
	/* Ask for the end, and see to it. */
	if (nbd_aio_disconnect(h, 0) == -1)
		fail(nbd_get_error());
	while (!nbd_aio_is_closed(h) && !nbd_aio_is_dead(h))
		step(h);
	nbd_close(h);
	return EXIT_SUCCESS;
}
