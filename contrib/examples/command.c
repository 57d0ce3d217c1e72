/* command PROGRAM [ARGUMENT...]: start a server that takes its socket by systemd's protocol of
 * socket activation, and tell the size of its export.
 *
 * For example: command nbdkit memory 1M
 * A server that speaks on its standard input and output is for nbd_connect_command().
 */
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	struct nbd_handle *h = nbd_create();
	int64_t size;

	if (argc < 2) {
		fprintf(stderr, "usage: command PROGRAM [ARGUMENT...]\n");
		return EXIT_FAILURE;
	}
	/* argv ends with NULL, and so must the command. */
	if (!h || nbd_connect_systemd_socket_activation(h, argv + 1) == -1 ||
	    (size = nbd_get_size(h)) == -1) {
		fprintf(stderr, "command: %s\n", nbd_get_error());
		return EXIT_FAILURE;
	}
	printf("%" PRIi64 " bytes\n", size);
	/* This ends the server, waits for it, and removes its socket. */
	nbd_close(h);
	return EXIT_SUCCESS;
}
