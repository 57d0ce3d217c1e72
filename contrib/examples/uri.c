/* uri URI: print the parts of an NBD URI, without connecting.
 *
 * nbdd_uri_parse is for programs that keep addresses, show them, or look names up
 * themselves and connect with nbdd_connect_addresses.
 */
#include <nbdd.h>
#include <stdio.h>
#include <stdlib.h>

static void print(const char *name, const char *value)
{
	if (value)
		printf("%s: %s\n", name, value);
}

int main(int argc, char **argv)
{
	static const char *const transports[] = {
		[NBDD_TRANSPORT_TCP] = "tcp", [NBDD_TRANSPORT_UNIX] = "unix",
		[NBDD_TRANSPORT_VSOCK] = "vsock",
	};
	struct nbdd_uri *u;

	if (argc != 2) {
		fprintf(stderr, "usage: uri URI\n");
		return EXIT_FAILURE;
	}
	u = nbdd_uri_parse(argv[1]);
	if (!u) {
		fprintf(stderr, "uri: %s\n", nbd_get_error());
		return EXIT_FAILURE;
	}
	print("transport", transports[u->transport]);
	print("tls", u->tls ? "required" : "no");
	print("host", u->host);
	print("port", u->port);
	print("socket", u->socket_path);
	if (u->transport == NBDD_TRANSPORT_VSOCK)
		printf("vsock: %u:%u\n", u->vsock_cid, u->vsock_port);
	print("export", u->export_name);
	print("user", u->username);
	print("certificates", u->tls_certificates);
	print("psk-file", u->tls_psk_file);
	nbdd_uri_free(u);
	return EXIT_SUCCESS;
}
