/* tls SOCKET PSK-FILE ROUNDS: encrypted sessions in all that the library does with memory.
 * SOCKET is a server's of 8 MiB, for user alice of PSK-FILE.  Built with sanitizers. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "tests/lib/check.h"

#define SIZE (8 << 20)
#define DEPTH 48

static uint8_t model[SIZE], back[SIZE];

static struct nbd_handle *new_handle(const char *keys)
{
	struct nbd_handle *h = nbd_create();

	CHECK(h && nbd_set_tls_psk_file(h, keys) == 0 && nbd_set_tls_username(h, "alice") == 0);
	return h;
}

static struct nbd_handle *connected(const char *socket, const char *keys)
{
	struct nbd_handle *h = new_handle(keys);

	CHECK(nbd_set_tls(h, LIBNBD_TLS_REQUIRE) == 0 && nbd_connect_unix(h, socket) == 0);
	CHECK(nbd_get_tls_negotiated(h) == 1);
	return h;
}

static int on_completion(void *data, int *error)
{
	CHECK(*error == 0);
	++*(unsigned *)data;
	return 1;
}

/* Lengths from one byte to some records, in turn. */
static size_t length(unsigned i)
{
	static const size_t lengths[] = { 4096, 1, 16384, 511, 100000, 4096, 65536, 16385 };

	return lengths[i % (sizeof(lengths) / sizeof(lengths[0]))];
}

/* All of the export, DEPTH requests at a time; WRITE: from model, else to back. */
static void pass(struct nbd_handle *h, int write)
{
	unsigned issued = 0, done = 0;

	for (size_t at = 0; at < SIZE || done < issued;) {
		while (at < SIZE && issued - done < DEPTH) {
			nbd_completion_callback cb = { .callback = on_completion,
						       .user_data = &done };
			size_t len = length(issued);

			len = SIZE - at < len ? SIZE - at : len;
			CHECK((write ? nbd_aio_pwrite(h, model + at, len, at, cb, 0)
				     : nbd_aio_pread(h, back + at, len, at, cb, 0)) > 0);
			issued++;
			at += len;
		}
		CHECK(nbd_poll(h, -1) >= 0);
	}
}

static void round_trip(const char *socket, const char *keys, unsigned seed)
{
	struct nbd_handle *h = connected(socket, keys);

	for (size_t i = 0; i < SIZE; i++)
		model[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
	pass(h, 1);
	memset(back, 0, SIZE);
	pass(h, 0);
	CHECK(memcmp(model, back, SIZE) == 0);
	for (unsigned i = 0; i < 16; i++) {
		CHECK(nbd_pread(h, back, length(i), 1000 * i, 0) == 0);
		CHECK(memcmp(model + 1000 * i, back, length(i)) == 0);
	}
	CHECK(nbd_shutdown(h, 0) == 0);
	nbd_close(h);
}

/* By hand, where the server leaves the choice. */
static void by_hand(const char *socket, const char *keys)
{
	struct nbd_handle *h = new_handle(keys);

	CHECK(nbd_set_opt_mode(h, true) == 0 && nbd_connect_unix(h, socket) == 0);
	CHECK(nbd_get_tls_negotiated(h) == 0 && nbd_opt_starttls(h) == 1);
	CHECK(nbd_get_tls_negotiated(h) == 1 && nbd_get_structured_replies_negotiated(h) == 0);
	CHECK(nbd_opt_go(h) == 0 && nbd_pread(h, back, 512, 0, 0) == 0);
	nbd_close(h);
}

/* Closed in the middle of all. */
static void abandoned(const char *socket, const char *keys)
{
	struct nbd_handle *h = connected(socket, keys);
	unsigned done = 0;

	for (unsigned i = 0; i < DEPTH; i++) {
		nbd_completion_callback cb = { .callback = on_completion, .user_data = &done };

		CHECK(nbd_aio_pread(h, back, 65536, 0, cb, 0) > 0);
	}
	for (unsigned i = 0; i < 3; i++)
		CHECK(nbd_poll(h, 1000) >= 0);
	nbd_close(h);
}

static void refused(const char *socket, const char *keys)
{
	struct nbd_handle *h = new_handle(keys);

	CHECK(nbd_set_tls(h, LIBNBD_TLS_REQUIRE) == 0 && nbd_set_tls_username(h, "eve") == 0);
	CHECK(nbd_connect_unix(h, socket) == -1 && nbd_get_errno() == ENOKEY);
	nbd_close(h);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	for (int i = 0; i < atoi(argv[3]); i++)
		round_trip(argv[1], argv[2], (unsigned)i);
	by_hand(argv[1], argv[2]);
	refused(argv[1], argv[2]);
	abandoned(argv[1], argv[2]);	/* nbdkit may not survive it */
	printf("encrypted\n");
	return 0;
}
