/* threads SOCKET [PSK-FILE]: one handle in the hands of many threads, and many handles in one
 * loop.  Built with ThreadSanitizer; SOCKET is a server's that can do all commands, 64 MiB big;
 * with PSK-FILE, one that wants TLS and user alice. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "tests/lib/check.h"

#define THREADS 8
#define ROUNDS 40
#define BLOCK 4096
#define REGION (ROUNDS * BLOCK)		/* of one thread */
#define HANDLES 48
#define BIG (2 << 20)
#define BIG_ROUNDS 4

struct shared {
	struct nbd_handle *h;
	atomic_int threads;
};

struct reader {
	atomic_int done, error;
};

static const char *psk_file;

static struct nbd_handle *new_handle(void)
{
	struct nbd_handle *h = nbd_create();

	CHECK(h);
	if (psk_file)
		CHECK(nbd_set_tls(h, LIBNBD_TLS_REQUIRE) == 0 &&
		      nbd_set_tls_psk_file(h, psk_file) == 0 &&
		      nbd_set_tls_username(h, "alice") == 0);
	return h;
}

static struct nbd_handle *connected(const char *socket)
{
	struct nbd_handle *h = new_handle();

	CHECK(nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0);
	CHECK(nbd_connect_unix(h, socket) == 0);
	return h;
}

static int on_extent(void *data, const char *context, uint64_t offset, uint32_t *entries,
		     size_t n, int *error)
{
	*(size_t *)data += n;
	return 0;
}

static int on_completion(void *data, int *error)
{
	struct reader *r = data;

	atomic_store(&r->error, *error);
	atomic_store(&r->done, 1);
	return 1;
}

/* A request of this thread's own, while the others do theirs. */
static void read_async(struct nbd_handle *h, char *buf, uint64_t offset)
{
	struct reader r = {};
	nbd_completion_callback cb = { .callback = on_completion, .user_data = &r };

	CHECK(nbd_aio_pread(h, buf, BLOCK, offset, cb, 0) > 0);
	while (!atomic_load(&r.done))
		CHECK(nbd_poll(h, 10) >= 0);
	CHECK(atomic_load(&r.error) == 0);
}

/* Errors belong to the thread that made them, whatever the others do on the handle. */
static void fail(struct nbd_handle *h, char *buf)
{
	CHECK(nbd_pread(h, buf, BLOCK, UINT64_MAX - BLOCK, 0) == -1);
	CHECK(nbd_get_errno() == EINVAL && strstr(nbd_get_error(), "nbd_pread: request out"));
}

static void look(struct nbd_handle *h)
{
	CHECK(nbd_get_size(h) == 64 << 20 && nbd_can_flush(h) == 1);
	CHECK(nbd_aio_is_dead(h) == 0 && nbd_aio_in_flight(h) >= 0);
	CHECK(nbd_aio_get_direction(h) <= LIBNBD_AIO_DIRECTION_BOTH);
	CHECK(nbd_set_private_data(h, 1) <= 1);
	CHECK(nbd_stats_bytes_sent(h) > 0);
}

static void *work(void *data)
{
	struct shared *s = data;
	int number = atomic_fetch_add(&s->threads, 1);
	char wrote[BLOCK], got[BLOCK];

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t at = (uint64_t)number * REGION + (uint64_t)i * BLOCK;
		size_t extents = 0;
		nbd_extent_callback cb = { .callback = on_extent, .user_data = &extents };

		memset(wrote, number * ROUNDS + i, BLOCK);
		CHECK(nbd_pwrite(s->h, wrote, BLOCK, at, 0) == 0);
		memset(got, 0, BLOCK);
		if (i % 2)
			CHECK(nbd_pread(s->h, got, BLOCK, at, 0) == 0);
		else
			read_async(s->h, got, at);
		CHECK(memcmp(wrote, got, BLOCK) == 0);
		CHECK(nbd_block_status(s->h, BLOCK, at, cb, 0) == 0 && extents >= 2);
		if (i % 8 == number)
			CHECK(nbd_flush(s->h, 0) == 0);
		fail(s->h, got);
		look(s->h);
	}
	return NULL;
}

static void one_handle(const char *socket)
{
	struct shared s = { .h = connected(socket) };
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, work, &s) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(nbd_shutdown(s.h, 0) == 0);
	nbd_close(s.h);
}

/* More than the socket takes at once, from all of them: one waits for replies, one for room. */
static void *work_big(void *data)
{
	struct shared *s = data;
	uint64_t at = (uint64_t)atomic_fetch_add(&s->threads, 1) * BIG;
	char *wrote = malloc(BIG), *got = malloc(BIG);

	CHECK(wrote && got);
	for (int i = 0; i < BIG_ROUNDS; i++) {
		struct reader r = {};
		nbd_completion_callback cb = { .callback = on_completion, .user_data = &r };

		memset(wrote, (int)(at / BIG) * BIG_ROUNDS + i + 1, BIG);
		if (i % 2)
			CHECK(nbd_pwrite(s->h, wrote, BIG, at, 0) == 0);
		else
			CHECK(nbd_aio_pwrite(s->h, wrote, BIG, at, cb, 0) > 0);
		while (i % 2 == 0 && !atomic_load(&r.done))
			CHECK(nbd_poll(s->h, 10) >= 0);
		CHECK(nbd_pread(s->h, got, BIG, at, 0) == 0);
		CHECK(memcmp(wrote, got, BIG) == 0);
	}
	free(wrote);
	free(got);
	return NULL;
}

static void one_full_socket(const char *socket)
{
	struct shared s = { .h = connected(socket) };
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, work_big, &s) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	nbd_close(s.h);
}

/* A handle for each thread: nothing is shared but the library. */
static void *work_alone(void *data)
{
	struct shared s = { .h = connected(data), .threads = THREADS };

	work(&s);
	nbd_close(s.h);
	return NULL;
}

static void a_handle_each(const char *socket)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, work_alone, (void *)socket) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

/* Tell handle H what poll(2) saw. */
static void notify(struct nbd_handle *h, short events)
{
	unsigned direction = nbd_aio_get_direction(h);

	if (events & (POLLIN | POLLHUP) && direction & LIBNBD_AIO_DIRECTION_READ)
		CHECK(nbd_aio_notify_read(h) == 0);
	else if (events & POLLOUT && direction & LIBNBD_AIO_DIRECTION_WRITE)
		CHECK(nbd_aio_notify_write(h) == 0);
}

static void one_loop(const char *socket)
{
	struct nbd_handle *h[HANDLES];
	struct reader readers[HANDLES] = {};
	struct pollfd fds[HANDLES];
	static char buf[HANDLES][BLOCK];
	int left = HANDLES, started[HANDLES] = {};

	for (int i = 0; i < HANDLES; i++) {
		h[i] = new_handle();
		CHECK(nbd_aio_connect_unix(h[i], socket) == 0);
	}
	while (left) {
		for (int i = 0; i < HANDLES; i++) {
			unsigned d = nbd_aio_get_direction(h[i]);

			fds[i].fd = nbd_aio_get_fd(h[i]);
			fds[i].events = (d & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
					(d & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
		}
		CHECK(poll(fds, HANDLES, -1) > 0);
		for (int i = 0; i < HANDLES; i++) {
			nbd_completion_callback cb = { .callback = on_completion,
						       .user_data = &readers[i] };

			notify(h[i], fds[i].revents);
			if (nbd_aio_is_ready(h[i]) && !started[i]) {
				started[i] = 1;
				CHECK(nbd_aio_pread(h[i], buf[i], BLOCK, 0, cb, 0) > 0);
			}
			if (atomic_exchange(&readers[i].done, 0))
				left--;
		}
	}
	for (int i = 0; i < HANDLES; i++) {
		CHECK(atomic_load(&readers[i].error) == 0);
		nbd_close(h[i]);
	}
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 3)
		return 2;
	psk_file = argv[2];
	one_handle(argv[1]);
	one_full_socket(argv[1]);
	a_handle_each(argv[1]);
	one_loop(argv[1]);
	printf("%d threads, %d handles\n", THREADS, HANDLES);
	return 0;
}
