/* options URI NAME...: negotiate by hand, and use the first export of those named that the
 * server has.
 *
 * In opt mode a failed option is no end: the next may be tried on the same connection.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(void)
{
	fprintf(stderr, "options: %s\n", nbd_get_error());
	exit(EXIT_FAILURE);
}

static int on_context(void *user_data, const char *name)
{
	(void)user_data;
	printf("  context %s\n", name);
	return 0;
}

/* Does the server have this export?  If so, tell about it. */
static int look(struct nbd_handle *h, const char *name)
{
	nbd_context_callback callback = { .callback = on_context };

	if (nbd_set_export_name(h, name) == -1)
		fail();
	if (nbd_opt_info(h) == -1) {
		printf("%s: no\n", name);
		/* Anything but a refusal ends the connection. */
		if (!nbd_aio_is_negotiating(h))
			fail();
		return 0;
	}
	printf("%s: %" PRIi64 " bytes\n", name, nbd_get_size(h));
	/* Not every server knows contexts. */
	nbd_opt_list_meta_context(h, callback);
	return 1;
}

int main(int argc, char **argv)
{
	struct nbd_handle *h = nbd_create();
	char buf[512];
	int i = 2;

	if (argc < 3) {
		fprintf(stderr, "usage: options URI NAME...\n");
		return EXIT_FAILURE;
	}
	if (!h || nbd_set_opt_mode(h, true) == -1 || nbd_connect_uri(h, argv[1]) == -1)
		fail();
	while (i < argc && !look(h, argv[i]))
		i++;
	if (i == argc) {
		/* None: leave in good order. */
		nbd_opt_abort(h);
		nbd_close(h);
		return EXIT_FAILURE;
	}
	/* From here on commands are possible and options are not. */
	if (nbd_opt_go(h) == -1 || nbd_pread(h, buf, sizeof(buf), 0, 0) == -1)
		fail();
	printf("using %s\n", argv[i]);
	nbd_shutdown(h, 0);
	nbd_close(h);
	return EXIT_SUCCESS;
}
