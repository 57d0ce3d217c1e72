/* threads URI: one handle used by many threads in every way at once.  Exits 0 when all data
 * was right and all callbacks came. */
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 6
#define ROUNDS 200
#define BLOCK 4096
#define DEPTH 16

static struct nbd_handle *h;
static atomic_uint completed;
static atomic_bool over;

static void die(const char *what)
{
	const char *text = nbd_get_error();

	fprintf(stderr, "%s: %s\n", what, text ? text : "wrong data");
	exit(1);
}

/* Synchronous requests in a region of its own. */
static void *sync_worker(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	uint64_t at = (uint64_t)id * BLOCK * DEPTH;
	char out[BLOCK], in[BLOCK];

	for (unsigned i = 0; i < ROUNDS; i++) {
		memset(out, (int)(i + id), BLOCK);
		if (nbd_pwrite(h, out, BLOCK, at, 0) < 0)
			die("nbd_pwrite");
		if (nbd_pread(h, in, BLOCK, at, 0) < 0)
			die("nbd_pread");
		if (memcmp(in, out, BLOCK) != 0)
			die("data");
		/* Errors are of the thread. */
		if (nbd_pread(h, in, 1, UINT64_MAX, 0) != -1 || nbd_get_errno() != EINVAL ||
		    strncmp(nbd_get_error(), "nbd_pread: ", 11) != 0)
			die("error");
	}
	return NULL;
}

static int done(void *data, int *error)
{
	(void)data;
	if (*error)
		die("completion");
	atomic_fetch_add(&completed, 1);
	return 1;
}

/* Asynchronous requests, polled for with a limit. */
static void *aio_worker(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	static char buf[THREADS][DEPTH][BLOCK];
	nbd_completion_callback cb = { .callback = done };

	for (unsigned i = 0; i < ROUNDS; i++) {
		int64_t cookies[DEPTH / 2];

		for (unsigned k = 0; k < DEPTH / 2; k++) {
			uint64_t at = ((uint64_t)(THREADS + id) * DEPTH + k) * BLOCK;

			if (nbd_aio_pread(h, buf[id][k], BLOCK, at, cb, 0) < 0)
				die("nbd_aio_pread");
			cookies[k] = nbd_aio_pwrite(h, buf[id][DEPTH / 2 + k], BLOCK,
						    at + (DEPTH / 2) * BLOCK,
						    NBD_NULL_COMPLETION, 0);
			if (cookies[k] < 0)
				die("nbd_aio_pwrite");
		}
		for (unsigned k = 0; k < DEPTH / 2; k++) {
			int r;

			while ((r = nbd_aio_command_completed(h, (uint64_t)cookies[k])) == 0)
				if (nbd_poll(h, 10) < 0)
					die("nbd_poll");
			if (r < 0)
				die("nbd_aio_command_completed");
		}
	}
	return NULL;
}

/* What takes no lock, and what only looks. */
static void *onlooker(void *arg)
{
	unsigned sum = 0;

	(void)arg;
	while (!atomic_load(&over)) {
		sum += nbd_aio_get_direction(h) + (unsigned)nbd_aio_is_ready(h) +
		       (unsigned)nbd_aio_is_processing(h) + (unsigned)nbd_aio_in_flight(h);
		if (nbd_aio_is_dead(h) || nbd_get_size(h) <= 0)
			die("state");
		nbd_set_private_data(h, sum);
		if (!nbd_connection_state(h) || !nbd_stats_bytes_sent(h))
			die("stats");
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[2 * THREADS + 1];
	unsigned want = THREADS * ROUNDS * (DEPTH / 2);

	h = nbd_create();
	if (!h || argc != 2 || nbd_connect_uri(h, argv[1]) < 0)
		die("connect");
	for (uintptr_t i = 0; i < THREADS; i++) {
		pthread_create(&threads[2 * i], NULL, sync_worker, (void *)i);
		pthread_create(&threads[2 * i + 1], NULL, aio_worker, (void *)i);
	}
	pthread_create(&threads[2 * THREADS], NULL, onlooker, NULL);
	for (unsigned i = 0; i < 2 * THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&over, true);
	pthread_join(threads[2 * THREADS], NULL);
	while (nbd_aio_in_flight(h) > 0)
		if (nbd_poll(h, -1) < 0)
			die("nbd_poll");
	if (atomic_load(&completed) != want) {
		fprintf(stderr, "%u completions, expected %u\n", atomic_load(&completed), want);
		return 1;
	}
	if (nbd_shutdown(h, 0) < 0)
		die("nbd_shutdown");
	nbd_close(h);
	return 0;
}
