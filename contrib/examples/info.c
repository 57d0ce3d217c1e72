/* info URI: print what a server says of an export.
 *
 * Programs that write should ask before they use a command: the library refuses commands
 * that the server has not offered.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
	const char *name;
	int (*ask)(struct nbd_handle *h);
} questions[] = {
	{ "read-only", nbd_is_read_only }, { "rotational", nbd_is_rotational },
	{ "flush", nbd_can_flush }, { "fua", nbd_can_fua }, { "trim", nbd_can_trim },
	{ "zero", nbd_can_zero }, { "fast-zero", nbd_can_fast_zero },
	{ "cache", nbd_can_cache }, { "multi-conn", nbd_can_multi_conn }, { "df", nbd_can_df },
};

static const struct {
	const char *name;
	int type;
} sizes[] = {
	{ "minimum", LIBNBD_SIZE_MINIMUM }, { "preferred", LIBNBD_SIZE_PREFERRED },
	{ "maximum", LIBNBD_SIZE_MAXIMUM },
};

static void fail(void)
{
	fprintf(stderr, "info: %s\n", nbd_get_error());
	exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
	struct nbd_handle *h = nbd_create();
	char *description;
	int64_t n;

	if (argc != 2) {
		fprintf(stderr, "usage: info URI\n");
		return EXIT_FAILURE;
	}
	/* Ask for the description, too; not every server has one. */
	if (!h || nbd_set_full_info(h, true) == -1 || nbd_connect_uri(h, argv[1]) == -1)
		fail();
	n = nbd_get_size(h);
	if (n == -1)
		fail();
	printf("size: %" PRIi64 "\nprotocol: %s\n", n, nbd_get_protocol(h));
	description = nbd_get_export_description(h);
	if (description)
		printf("description: %s\n", description);
	free(description);
	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		int answer = questions[i].ask(h);

		if (answer == -1)
			fail();
		printf("%s: %s\n", questions[i].name, answer ? "yes" : "no");
	}
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		n = nbd_get_block_size(h, sizes[i].type);
		if (n == -1)
			fail();
		/* 0: the server did not say.  512 to 32 MiB works with every server. */
		printf("block-size-%s: %" PRIi64 "\n", sizes[i].name, n);
	}
	nbd_shutdown(h, 0);
	nbd_close(h);
	return EXIT_SUCCESS;
}
