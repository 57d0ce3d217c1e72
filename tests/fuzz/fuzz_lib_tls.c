/* A session with TLS: the way to it, and what a server does on its level while data flows.
 * The first bytes of input say what the client does, the others what the server does. */
#include <errno.h>
#include <libnbd.h>
#include <nbdd.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/promise.h"
#include "tests/fuzz/tls_peer.h"

#define PLAN_SIZE 24	/* bytes */
#define READS 6
#define READ_MAX 20000

static uint8_t buffers[READS][READ_MAX];

static bool check(int r)
{
	PROMISE(r != -1 || (nbd_get_error() && strncmp(nbd_get_error(), "nbd", 3) == 0));
	return r != -1;
}

static struct nbd_handle *new_handle(uint8_t how)
{
	static char key[] = "11111111111111111111111111111111";
	static char name[] = "fuzz";
	static const struct nbdd_tls_credentials keys = {
		.username = name, .psk = { key, sizeof(key) - 1 },
	};	/* which must outlive the handle */
	struct nbd_handle *h = nbd_create();

	PROMISE(h && nbdd_set_tls_credentials(h, &keys) == 0);
	PROMISE(nbd_set_tls(h, how & 1 ? LIBNBD_TLS_ALLOW : LIBNBD_TLS_REQUIRE) == 0);
	if (how & 2)
		PROMISE(nbd_set_tls(h, LIBNBD_TLS_DISABLE) == 0 &&
			nbd_set_opt_mode(h, true) == 0);
	return h;
}

static bool connected(struct nbd_handle *h, uint8_t how, int fd)
{
	if (!check(nbd_connect_socket(h, fd)))
		return false;
	if (how & 2 && (nbd_opt_starttls(h) != 1 || !check(nbd_opt_go(h))))
		return false;
	return true;
}

static int on_completion(void *data, int *error)
{
	*(int *)data = *error ? *error : -1;
	return 1;
}

static size_t length(uint8_t byte)
{
	static const size_t lengths[] = { 512, 1, 4096, 16384, 16368, READ_MAX, 64, 333 };

	return lengths[byte % 8];
}

/* Some reads at a time, and a write between; was all of it right? */
static bool transmit(struct nbd_handle *h, struct input *in)
{
	int done[READS] = {};
	size_t len[READS], n = input_byte(in) % READS + 1;
	uint64_t offset[READS];
	bool good = true;

	for (size_t i = 0; i < n; i++) {
		nbd_completion_callback cb = { .callback = on_completion,
					       .user_data = &done[i] };
		uint8_t byte = input_byte(in);

		len[i] = length(byte);
		offset[i] = (uint64_t)byte * 1021;
		memset(buffers[i], 0xaa, len[i]);
		if (!check(nbd_aio_pread(h, buffers[i], len[i], offset[i], cb, 0) < 0 ? -1 : 0))
			return false;
		if (byte & 0x80)
			good &= check(nbd_pwrite(h, buffers[0], length(byte >> 3), 0, 0));
	}
	while (nbd_aio_in_flight(h) > 0)
		good &= check(nbd_poll(h, -1));
	for (size_t i = 0; i < n; i++) {
		PROMISE(done[i]);
		/* Data that is said to be right is the server's; what failed is not stale. */
		for (size_t k = 0; k < len[i]; k++)
			PROMISE(done[i] == -1 ? buffers[i][k] == (uint8_t)(offset[i] + k)
					      : buffers[i][k] != 0xaa ||
						(uint8_t)(offset[i] + k) == 0xaa);
		good &= done[i] == -1;
	}
	return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t plan = size < PLAN_SIZE ? size : PLAN_SIZE;
	struct input in = { data, plan }, server = { data + plan, size - plan };
	uint8_t how = input_byte(&in);
	struct nbd_handle *h = new_handle(how);
	bool good = connected(h, how, tls_peer_begin(&server)), secure;

	secure = good && nbd_get_tls_negotiated(h) == 1;
	PROMISE(!good || secure || how & 1);
	if (good && nbd_aio_is_ready(h)) {
		for (int i = 0; i < 3 && good; i++)
			good = transmit(h, &in);
		if (good)
			good = check(nbd_shutdown(h, 0));
	}
	nbd_close(h);
	/* A server that kept to the rules was understood. */
	PROMISE(!tls_peer_end() || good);
	return 0;
}
