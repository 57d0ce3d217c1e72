/* chunks URI: read up to 1 MiB from the start of an export, and show the parts in which the
 * server sent it: each is there to be used before the next has come.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>

#define LENGTH (1 << 20)

/* SUBBUF lies in the buffer of the read.  To make the read fail: set *error, return -1. */
static int on_chunk(void *user_data, const void *subbuf, size_t count, uint64_t offset,
		    unsigned status, int *error)
{
	static const char *const kinds[] = {
		[LIBNBD_READ_DATA] = "data",
		[LIBNBD_READ_HOLE] = "hole",		/* SUBBUF is zeroed */
		[LIBNBD_READ_ERROR] = "error at",	/* of the server: *error */
	};

	(void)user_data;
	(void)subbuf;
	(void)error;
	if (status >= LIBNBD_READ_DATA && status <= LIBNBD_READ_ERROR)
		printf("%10" PRIu64 " %8zu %s\n", offset, count, kinds[status]);
	return 0;
}

int main(int argc, char **argv)
{
	nbd_chunk_callback callback = { .callback = on_chunk };
	struct nbd_handle *h = nbd_create();
	static char buf[LENGTH];
	int64_t size;

	if (argc != 2) {
		fprintf(stderr, "usage: chunks URI\n");
		return EXIT_FAILURE;
	}
	if (!h || nbd_connect_uri(h, argv[1]) == -1 || (size = nbd_get_size(h)) == -1 ||
	    nbd_pread_structured(h, buf, size < LENGTH ? (size_t)size : LENGTH, 0, callback,
				 0) == -1 ||
	    nbd_shutdown(h, 0) == -1) {
		fprintf(stderr, "chunks: %s\n", nbd_get_error());
		return EXIT_FAILURE;
	}
	nbd_close(h);
	return EXIT_SUCCESS;
}
