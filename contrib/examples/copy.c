/* copy URI URI: copy one export to another, with callbacks.
 *
 * A block is read; when its data is there, it is written to the other handle; when that is
 * complete, the block is free for the next read.  A callback must not make calls of its own
 * handle, so callbacks only note what has happened, and the loop makes the calls.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCKS 32
#define BLOCK_SIZE (128 * 1024)

enum state { FREE, READING, FULL, WRITING };

struct block {
	enum state state;
	uint64_t offset;
	size_t len;
	char buf[BLOCK_SIZE];
};

static void fail(const char *what)
{
	fprintf(stderr, "copy: %s\n", what);
	exit(EXIT_FAILURE);
}

static int on_read(void *user_data, int *error)
{
	struct block *block = user_data;

	if (*error)
		fail("a read has failed");
	block->state = FULL;
	return 1;
}

static int on_written(void *user_data, int *error)
{
	struct block *block = user_data;

	if (*error)
		fail("a write has failed");
	block->state = FREE;
	return 1;
}

static struct nbd_handle *connect_to(const char *uri)
{
	struct nbd_handle *h = nbd_create();

	if (!h || nbd_connect_uri(h, uri) == -1)
		fail(nbd_get_error());
	return h;
}

/* Wait for either server, and have both handles go on. */
static void step(struct nbd_handle *handles[2])
{
	struct pollfd fds[2];

	for (int i = 0; i < 2; i++) {
		unsigned direction = nbd_aio_get_direction(handles[i]);

		fds[i].fd = nbd_aio_get_fd(handles[i]);
		fds[i].events = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				(direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
	}
	if (poll(fds, 2, -1) == -1)
		fail("poll");
	for (int i = 0; i < 2; i++) {
		int r = 0;

		if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			r = nbd_aio_notify_read(handles[i]);
		else if (fds[i].revents & POLLOUT)
			r = nbd_aio_notify_write(handles[i]);
		if (r == -1)
			fail(nbd_get_error());
	}
}

int main(int argc, char **argv)
{
	static struct block blocks[BLOCKS];
	struct nbd_handle *h[2];
	uint64_t size, at = 0, written = 0;

	if (argc != 3)
		fail("usage: copy FROM-URI TO-URI");
	h[0] = connect_to(argv[1]);
	h[1] = connect_to(argv[2]);
	size = (uint64_t)nbd_get_size(h[0]);
	if ((uint64_t)nbd_get_size(h[1]) < size)
		fail("the second export is smaller than the first");

	while (written < size || nbd_aio_in_flight(h[1]) > 0) {
		for (int i = 0; i < BLOCKS; i++) {
			struct block *b = &blocks[i];
			nbd_completion_callback read = { .callback = on_read };
			nbd_completion_callback write = { .callback = on_written };

			read.user_data = write.user_data = b;
			if (b->state == FULL) {
				b->state = WRITING;
				written += b->len;
				if (nbd_aio_pwrite(h[1], b->buf, b->len, b->offset, write,
						   0) == -1)
					fail(nbd_get_error());
			} else if (b->state == FREE && at < size) {
				b->state = READING;
				b->offset = at;
				b->len = size - at < BLOCK_SIZE ? size - at : BLOCK_SIZE;
				at += b->len;
				if (nbd_aio_pread(h[0], b->buf, b->len, b->offset, read,
						  0) == -1)
					fail(nbd_get_error());
			}
		}
		step(h);
	}
	/* What is written may still be in the server's cache. */
	if (nbd_can_flush(h[1]) == 1 && nbd_flush(h[1], 0) == -1)
		fail(nbd_get_error());
	for (int i = 0; i < 2; i++) {
		nbd_shutdown(h[i], 0);
		nbd_close(h[i]);
	}
	printf("%" PRIu64 " bytes\n", size);
	return EXIT_SUCCESS;
}
