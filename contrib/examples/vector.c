/* vector URI: write a header and a body from two buffers with one request, and read them
 * back into others.
 *
 * nbdd.h has calls that libnbd.h has not; programs that use them need nbdd's library.
 */
#include <nbdd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_SIZE 4032

static void fail(const char *what)
{
	fprintf(stderr, "vector: %s\n", what);
	exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
	static char header[64] = "header", body[BODY_SIZE], whole[64 + BODY_SIZE];
	struct iovec out[] = { { header, sizeof(header) }, { body, sizeof(body) } };
	struct iovec in[] = { { whole, 100 }, { whole + 100, sizeof(whole) - 100 } };
	struct nbd_handle *h = nbd_create();

	if (argc != 2)
		fail("usage: vector URI");
	memset(body, 'b', sizeof(body));
	if (!h || nbd_connect_uri(h, argv[1]) == -1)
		fail(nbd_get_error());
	/* The server sees one write of 4096 bytes.  The array is copied, the data is not:
	 * it would have to stay as it is until an nbdd_aio_pwritev is complete. */
	if (nbdd_pwritev(h, out, 2, 0, 0) == -1)
		fail(nbd_get_error());
	/* Where the buffers of a read are cut is its own affair. */
	if (nbdd_preadv(h, in, 2, 0, 0) == -1)
		fail(nbd_get_error());
	if (memcmp(whole, header, sizeof(header)) != 0 ||
	    memcmp(whole + sizeof(header), body, sizeof(body)) != 0)
		fail("what was read is not what was written");
	printf("%zu bytes in one request\n", sizeof(whole));
	nbd_shutdown(h, 0);
	nbd_close(h);
	return EXIT_SUCCESS;
}
