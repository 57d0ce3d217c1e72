/* list URI: print the names of all exports of a server, and what each is for.
 *
 * In opt mode, connecting stops before an export is chosen: the server can be asked.
 */
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(void)
{
	fprintf(stderr, "list: %s\n", nbd_get_error());
	exit(EXIT_FAILURE);
}

/* Called for each export.  The strings live only as long as the call: copy what is needed.
 * They come from the server as they are; a terminal should see them escaped. */
static int on_export(void *user_data, const char *name, const char *description)
{
	unsigned *count = user_data;

	printf("%u: \"%s\"%s%s\n", ++*count, name, *description ? " " : "", description);
	return 0;
}

int main(int argc, char **argv)
{
	struct nbd_handle *h = nbd_create();
	unsigned count = 0;
	nbd_list_callback callback = { .callback = on_export, .user_data = &count };

	if (argc != 2) {
		fprintf(stderr, "usage: list URI\n");
		return EXIT_FAILURE;
	}
	if (!h || nbd_set_opt_mode(h, true) == -1 || nbd_connect_uri(h, argv[1]) == -1)
		fail();
	/* A server may refuse: the text then says so. */
	if (nbd_opt_list(h, callback) == -1)
		fail();
	/* Leave without having used an export. */
	if (nbd_opt_abort(h) == -1)
		fail();
	nbd_close(h);
	return EXIT_SUCCESS;
}
