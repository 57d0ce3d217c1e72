/* tls SOCKET PSK-FILE USER: connect with encryption by a pre-shared key, and nothing less.
 *
 * A key file has lines of USER:KEY, the key in hexadecimal; psktool(1) makes one.  With
 * certificates it is nbd_set_tls_certificates() in place of the last two calls.  A URI can say
 * all of this, too, where nbd_set_uri_allow_local_file() was called.
 */
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	struct nbd_handle *h = nbd_create();
	char byte;

	if (argc != 4) {
		fprintf(stderr, "usage: tls SOCKET PSK-FILE USER\n");
		return EXIT_FAILURE;
	}
	if (!h || nbd_set_tls(h, LIBNBD_TLS_REQUIRE) == -1 ||
	    nbd_set_tls_psk_file(h, argv[2]) == -1 ||
	    nbd_set_tls_username(h, argv[3]) == -1 ||
	    nbd_connect_unix(h, argv[1]) == -1 ||
	    nbd_pread(h, &byte, 1, 0, 0) == -1) {
		fprintf(stderr, "tls: %s\n", nbd_get_error());
		return EXIT_FAILURE;
	}
	printf("encrypted: %s\n", nbd_get_tls_negotiated(h) == 1 ? "yes" : "no");
	nbd_shutdown(h, 0);
	nbd_close(h);
	return EXIT_SUCCESS;
}
