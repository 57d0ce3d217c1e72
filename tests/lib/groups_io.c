/* Options, commands and their callbacks, as groups.h says. */
#include "tests/lib/groups.h"

#include <errno.h>
#include <nbdd.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>

#include "tests/lib/check.h"

#define BLOCK 65536

struct count {
	int calls, freed;
};

static void on_free(void *data)
{
	((struct count *)data)->freed++;
}

static int on_list(void *data, const char *name, const char *description)
{
	((struct count *)data)->calls++;
	return 0;
}

static int on_context(void *data, const char *name)
{
	((struct count *)data)->calls++;
	return 0;
}

static int on_completion(void *data, int *error)
{
	((struct count *)data)->calls++;
	return *error ? 0 : 1;
}

static int on_chunk(void *data, const void *sub, size_t count, uint64_t offset, unsigned status,
		    int *error)
{
	((struct count *)data)->calls++;
	return 0;
}

static int on_extent(void *data, const char *context, uint64_t offset, uint32_t *entries,
		     size_t n, int *error)
{
	((struct count *)data)->calls++;
	return 0;
}

static int on_extent64(void *data, const char *context, uint64_t offset, nbd_extent *entries,
		       size_t n, int *error)
{
	((struct count *)data)->calls++;
	*error = EDOM;
	return -1;
}

static int on_debug(void *data, const char *context, const char *message)
{
	((struct count *)data)->calls++;
	return 0;
}

#define CB(type, c) \
	((nbd_##type##_callback) { .callback = on_##type, .user_data = (c), .free = on_free })

static void wait_for(struct nbd_handle *h, const struct count *c)
{
	while (!c->calls)
		CHECK(nbd_poll(h, -1) == 1);
}

void option_group(const char *socket_path)
{
	struct count list = {}, contexts = {}, done = {};
	struct nbd_handle *h = nbd_create();
	char *queries[] = { (char *)"base:", NULL };

	CHECK(h && nbd_set_opt_mode(h, true) == 0 && nbd_set_full_info(h, true) == 0);
	CHECK(nbd_set_request_structured_replies(h, false) == 0);
	CHECK(nbd_connect_unix(h, socket_path) == 0 && nbd_aio_is_negotiating(h) == 1);
	CHECK(nbd_opt_structured_reply(h) == 1 && nbd_opt_extended_headers(h) == 0);
	CHECK(nbd_opt_list(h, CB(list, &list)) == 1 && list.calls == 1 && list.freed == 1);
	CHECK(nbd_opt_list_meta_context_queries(h, queries, CB(context, &contexts)) >= 1);
	CHECK(nbd_opt_set_meta_context_queries(h, queries, CB(context, &contexts)) >= 0);
	CHECK(contexts.freed == 2);
	CHECK(nbd_aio_opt_info(h, CB(completion, &done)) == 0);
	wait_for(h, &done);
	CHECK(nbd_get_size(h) > 0 && nbd_get_block_size(h, LIBNBD_SIZE_PREFERRED) >= 0);
	done.calls = 0;
	CHECK(nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0);
	CHECK(nbd_aio_opt_go(h, CB(completion, &done)) == 0);
	wait_for(h, &done);
	CHECK(nbd_aio_is_ready(h) == 1 && done.freed == 2);
	CHECK(nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1);
	nbd_close(h);

	h = nbd_create();
	CHECK(h && nbd_set_opt_mode(h, true) == 0 && nbd_connect_unix(h, socket_path) == 0);
	list.calls = 0;
	CHECK(nbd_aio_opt_list(h, CB(list, &list), CB(completion, &done)) == 0);
	nbd_close(h);			/* in the middle of it */
	CHECK(list.freed == 2 && done.freed == 3);
	h = nbd_create();
	CHECK(h && nbd_set_opt_mode(h, true) == 0 && nbd_connect_unix(h, socket_path) == 0);
	CHECK(nbd_opt_abort(h) == 0 && nbd_aio_is_closed(h) == 1);
	nbd_close(h);
}

static void vectors(struct nbd_handle *h)
{
	char a[1000], b[24], c[3072];
	struct iovec iov[] = { { a, sizeof(a) }, { b, sizeof(b) }, { NULL, 0 }, { c, sizeof(c) } };

	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	memset(c, 3, sizeof(c));
	CHECK(nbdd_pwritev(h, iov, 4, 512, 0) == 0);
	memset(a, 0, sizeof(a));
	memset(c, 0, sizeof(c));
	CHECK(nbdd_preadv(h, iov, 4, 512, 0) == 0);
	CHECK(a[999] == 1 && b[23] == 2 && c[0] == 3 && c[3071] == 3);
}

void command_group(const char *socket_path)
{
	struct count chunk = {}, extent = {}, debug = {};
	struct nbd_handle *h = nbd_create();
	char *buf = malloc(BLOCK), *got = malloc(BLOCK);

	CHECK(h && buf && got);
	CHECK(nbd_set_debug_callback(h, CB(debug, &debug)) == 0 && nbd_set_debug(h, true) == 0);
	CHECK(nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0);
	CHECK(nbd_connect_unix(h, socket_path) == 0);
	memset(buf, 7, BLOCK);
	CHECK(nbd_pwrite(h, buf, BLOCK, 0, LIBNBD_CMD_FLAG_FUA) == 0 && nbd_flush(h, 0) == 0);
	CHECK(nbd_pread(h, got, BLOCK, 0, 0) == 0 && memcmp(buf, got, BLOCK) == 0);
	CHECK(nbd_pread_structured(h, got, BLOCK, 0, CB(chunk, &chunk), 0) == 0);
	CHECK(chunk.calls >= 1 && chunk.freed == 1 && memcmp(buf, got, BLOCK) == 0);
	CHECK(nbd_zero(h, 4096, 0, 0) == 0 && nbd_trim(h, 4096, 4096, 0) == 0);
	CHECK(nbd_cache(h, BLOCK, 0, 0) == 0);
	CHECK(nbd_block_status(h, BLOCK, 0, CB(extent, &extent), 0) == 0 && extent.calls == 1);
	CHECK(nbd_block_status_64(h, BLOCK, 0, CB(extent64, &extent), 0) == -1);
	CHECK(nbd_get_errno() == EDOM && extent.freed == 2);
	vectors(h);
	CHECK(debug.calls > 10 && nbd_clear_debug_callback(h) == 0 && debug.freed == 1);
	CHECK(nbd_set_debug(h, false) == 0 && nbd_shutdown(h, 0) == 0);
	nbd_close(h);
	free(buf);
	free(got);
}

/* Wait by poll(2) and tell the handle, until nothing is in flight. */
static void loop(struct nbd_handle *h)
{
	while (nbd_aio_in_flight(h) > 0) {
		unsigned d = nbd_aio_get_direction(h);
		struct pollfd fd = { nbd_aio_get_fd(h), 0, 0 };

		fd.events = (d & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
			    (d & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
		CHECK(poll(&fd, 1, -1) == 1);
		if (fd.revents & POLLIN)
			CHECK(nbd_aio_notify_read(h) == 0);
		else if (fd.revents & POLLOUT)
			CHECK(nbd_aio_notify_write(h) == 0);
	}
}

void aio_group(const char *socket_path)
{
	struct count done = {}, extent = {};
	struct nbd_handle *h = nbd_create();
	char *buf = calloc(4, BLOCK);
	int64_t cookie;

	CHECK(h && buf && nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0);
	CHECK(nbd_aio_connect_unix(h, socket_path) == 0);
	while (nbd_aio_is_connecting(h))
		CHECK(nbd_poll(h, -1) == 1);
	for (uint64_t i = 0; i < 4; i++) {
		CHECK(nbd_aio_pwrite(h, buf + i * BLOCK, BLOCK, i * BLOCK, CB(completion, &done),
				     0) > 0);
		CHECK(nbd_aio_zero(h, 512, i * BLOCK, CB(completion, &done), 0) > 0);
	}
	CHECK(nbd_aio_block_status(h, BLOCK, 0, CB(extent, &extent), CB(completion, &done),
				   0) > 0);
	loop(h);
	CHECK(done.calls == 9 && done.freed == 9 && extent.freed == 1);
	CHECK((cookie = nbd_aio_pread(h, buf, BLOCK, 0, NBD_NULL_COMPLETION, 0)) > 0);
	loop(h);
	CHECK(nbd_aio_peek_command_completed(h) == cookie);
	CHECK(nbd_aio_command_completed(h, (uint64_t)cookie) == 1);
	/* Left in flight, complete but not asked for, and failed, when the handle is closed. */
	CHECK(nbd_aio_pread(h, buf, BLOCK, 0, NBD_NULL_COMPLETION, 0) > 0);
	loop(h);
	CHECK(nbd_aio_pread(h, buf, BLOCK, 1ull << 60, CB(completion, &done), 0) == -1);
	CHECK(done.calls == 9 && done.freed == 10);
	CHECK(nbd_aio_pread(h, buf, BLOCK, 0, CB(completion, &done), 0) > 0);
	CHECK(nbd_aio_flush(h, CB(completion, &done), 0) > 0);
	nbd_close(h);
	CHECK(done.freed == 12);
	free(buf);
}
