/* read URI: connect to an NBD server and print the first bytes of the export.
 *
 * The shortest way to use the library: every call waits for its end.  Each returns -1 (or
 * NULL) when it has failed; nbd_get_error then says what went wrong, in this thread.
 *
 *	cc -o read read.c $(pkg-config --cflags --libs libnbd)
 */
#include <libnbd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(void)
{
	fprintf(stderr, "read: %s\n", nbd_get_error());
	exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
	unsigned char buf[64];
	struct nbd_handle *h;
	int64_t size;

	if (argc != 2) {
		fprintf(stderr, "usage: read URI\n");
		return EXIT_FAILURE;
	}
	h = nbd_create();
	if (!h || nbd_connect_uri(h, argv[1]) == -1)
		fail();
	size = nbd_get_size(h);
	if (size == -1)
		fail();
	if (size > (int64_t)sizeof(buf))
		size = sizeof(buf);
	/* Nothing can be read of an empty export: a count of 0 is an error. */
	if (size > 0 && nbd_pread(h, buf, (size_t)size, 0, 0) == -1)
		fail();
	for (int64_t i = 0; i < size; i++)
		printf("%02x%c", buf[i], i % 16 == 15 || i + 1 == size ? '\n' : ' ');
	/* Say goodbye to the server.  nbd_close alone would just hang up. */
	if (nbd_shutdown(h, 0) == -1)
		fail();
	nbd_close(h);
	return EXIT_SUCCESS;
}
