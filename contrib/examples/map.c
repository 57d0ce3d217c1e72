/* map URI: print which parts of an export hold data and which are holes.
 *
 * The meta context base:allocation must be asked for before connecting.  A server answers
 * for as much of the range as it likes, so the question is repeated from where it ended.
 */
#include <inttypes.h>
#include <libnbd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than the server can be asked for at once: block status lengths have 32 bits. */
#define LENGTH_MAX (UINT64_C(1) << 31)

struct map {
	uint64_t at;		/* known up to here */
	uint64_t end;
};

static void fail(void)
{
	fprintf(stderr, "map: %s\n", nbd_get_error());
	exit(EXIT_FAILURE);
}

/* ENTRIES are pairs of length and flags, N numbers in all.  One call for each context. */
static int on_extents(void *user_data, const char *context, uint64_t offset,
		      uint32_t *entries, size_t n, int *error)
{
	struct map *map = user_data;

	(void)error;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	for (size_t i = 0; i + 1 < n && offset < map->end; i += 2) {
		/* The last extent may reach past what was asked for. */
		uint64_t left = map->end - offset;
		uint64_t length = entries[i] < left ? entries[i] : left;

		printf("%10" PRIu64 " %10" PRIu64 " %s%s\n", offset, length,
		       entries[i + 1] & LIBNBD_STATE_HOLE ? "hole" : "allocated",
		       entries[i + 1] & LIBNBD_STATE_ZERO ? ", reads as zero" : "");
		offset += length;
	}
	map->at = offset;
	return 0;
}

int main(int argc, char **argv)
{
	struct nbd_handle *h = nbd_create();
	struct map map = { 0, 0 };
	nbd_extent_callback callback = { .callback = on_extents, .user_data = &map };

	if (argc != 2) {
		fprintf(stderr, "usage: map URI\n");
		return EXIT_FAILURE;
	}
	if (!h || nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 ||
	    nbd_connect_uri(h, argv[1]) == -1)
		fail();
	if (nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1) {
		fprintf(stderr, "map: the server does not tell\n");
		return EXIT_FAILURE;
	}
	map.end = (uint64_t)nbd_get_size(h);
	while (map.at < map.end) {
		uint64_t length = map.end - map.at;

		if (nbd_block_status(h, length < LENGTH_MAX ? length : LENGTH_MAX, map.at,
				     callback, 0) == -1)
			fail();
	}
	nbd_shutdown(h, 0);
	nbd_close(h);
	return EXIT_SUCCESS;
}
