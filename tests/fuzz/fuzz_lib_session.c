/* A whole session of the library.  The first piece of input is how the socket behaves (a
 * byte) and what the client does; the others are the bytes that the server sends. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/lib_client.h"
#include "tests/fuzz/lib_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct peer_manner manner;
	struct piece plan;
	size_t at = 0;

	if (!piece_next(data, size, &at, &plan) || !plan.len)
		return 0;
	manner = peer_manner(plan.p[0]);
	client_run(plan.p + 1, plan.len - 1, peer_begin(data + at, size - at, &manner, NULL));
	peer_end();
	return 0;
}
