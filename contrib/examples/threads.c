/* threads URI: read a whole export by four threads that share one handle.
 *
 * Any call may be made by any thread; one that waits for the server does not keep the others
 * from working.  The error that nbd_get_error() tells is the thread's own.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 4
#define PIECE 65536

static struct nbd_handle *h;
static uint64_t size;

struct part {
	pthread_t thread;
	int number;
	uint64_t sum;
};

static void *work(void *data)
{
	struct part *part = data;
	unsigned char buf[PIECE];

	/* Every fourth piece. */
	for (uint64_t at = (uint64_t)part->number * PIECE; at < size; at += THREADS * PIECE) {
		size_t len = size - at < PIECE ? (size_t)(size - at) : PIECE;

		if (nbd_pread(h, buf, len, at, 0) == -1) {
			fprintf(stderr, "threads: %s\n", nbd_get_error());
			exit(EXIT_FAILURE);
		}
		for (size_t i = 0; i < len; i++)
			part->sum += buf[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct part parts[THREADS] = { { 0 } };
	uint64_t sum = 0;

	h = nbd_create();
	if (argc != 2 || !h || nbd_connect_uri(h, argv[1]) == -1) {
		fprintf(stderr, "threads: %s\n", argc == 2 ? nbd_get_error() : "needs a URI");
		return EXIT_FAILURE;
	}
	size = (uint64_t)nbd_get_size(h);
	for (int i = 0; i < THREADS; i++) {
		parts[i].number = i;
		if (pthread_create(&parts[i].thread, NULL, work, &parts[i]) != 0)
			return EXIT_FAILURE;
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(parts[i].thread, NULL);
		sum += parts[i].sum;
	}
	printf("%" PRIu64 " bytes, sum %" PRIu64 "\n", size, sum);
	nbd_shutdown(h, 0);
	nbd_close(h);
	return EXIT_SUCCESS;
}
