/* A session whose server knows the protocol's form and fills in magic numbers, cookies and
 * lengths, so that random input gets past them to what the messages say.
 *
 * The first piece of input is as in fuzz_lib_session.c.  Each other piece is a message: a
 * byte of enum kind with marks, then what that kind wants, then the payload. */
#include <string.h>

#include "lib/util/macro.h"
#include "lib/wire/message.h"
#include "lib/wire/option.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/lib_client.h"
#include "tests/fuzz/lib_peer.h"

enum kind {
	RAW,		/* bytes as they stand */
	HELLO,		/* handshake flags in a byte */
	OPTION_REPLY,	/* type in a byte, its upper bit the one of errors */
	SIMPLE_REPLY,	/* which request in a byte, error in a byte */
	CHUNK,		/* which request, flags, type: a byte each */
	EXTENDED_CHUNK,
	KINDS,
};

#define MARK_MORE	0x10	/* the next message comes along */
#define MARK_ZEROES	0x20	/* two bytes tell how many zeroes follow the payload */
#define MARK_LENGTH	0x40	/* four bytes are the length to claim */

/* The next LEN bytes of IN as a number; what is missing counts as 0. */
static uint32_t take(struct piece *in, size_t len)
{
	uint32_t v = 0;

	while (len--) {
		v = v << 8 | (in->len ? in->p[0] : 0);
		if (in->len) {
			in->p++;
			in->len--;
		}
	}
	return v;
}

static size_t option_reply(struct piece *in, const struct seen *seen, uint8_t *out)
{
	uint32_t type = take(in, 1);

	be64_put(out, NBD_OPTION_REPLY_MAGIC);
	be32_put(out + 8, seen->option);
	be32_put(out + 12, (type & 0x80 ? NBD_REP_FLAG_ERROR : 0) | (type & 0x7f));
	return OPTION_REPLY_SIZE;
}

static size_t reply(enum kind kind, struct piece *in, const struct seen *seen, uint8_t *out)
{
	static const uint32_t magic[KINDS] = {
		[SIMPLE_REPLY] = NBD_SIMPLE_REPLY_MAGIC, [CHUNK] = NBD_STRUCTURED_REPLY_MAGIC,
		[EXTENDED_CHUNK] = NBD_EXTENDED_REPLY_MAGIC,
	};
	size_t known = MIN(seen->n, ARRAY_SIZE(seen->cookies));
	size_t which = take(in, 1) % (known ? known : 1);
	uint32_t flags, type;

	be32_put(out, magic[kind]);
	be64_put(out + 8, seen->cookies[which]);
	if (kind == SIMPLE_REPLY) {
		be32_put(out + 4, take(in, 1));
		return SIMPLE_REPLY_SIZE;
	}
	flags = take(in, 1);
	type = take(in, 1);
	be16_put(out + 4, (uint16_t)flags);
	be16_put(out + 6, (uint16_t)((type & 0x80) << 8 | (type & 0x7f)));
	if (kind == CHUNK)
		return CHUNK_SIZE;
	be64_put(out + 16, seen->offsets[which]);
	return EXTENDED_CHUNK_SIZE;
}

/* The head of a message, its length left out. */
static size_t head(enum kind kind, struct piece *in, const struct seen *seen, uint8_t *out)
{
	switch (kind) {
	case RAW:
		return 0;
	case HELLO:
		be64_put(out, NBD_MAGIC);
		be64_put(out + 8, NBD_OPTION_MAGIC);
		be16_put(out + 16, (uint16_t)take(in, 1));
		return 18;
	case OPTION_REPLY:
		return option_reply(in, seen, out);
	default:
		return reply(kind, in, seen, out);
	}
}

static size_t make(const struct piece *piece, const struct seen *seen, uint8_t *out, int *more)
{
	struct piece in = *piece;
	uint32_t control = take(&in, 1), zeroes = 0, claimed = 0;
	enum kind kind = (control & 0xf) % KINDS;
	size_t len = head(kind, &in, seen, out), payload;

	*more = control & MARK_MORE;
	if (control & MARK_ZEROES)
		zeroes = take(&in, 2);
	if (control & MARK_LENGTH)
		claimed = take(&in, 4);
	payload = MIN(in.len, PEER_MESSAGE_MAX - len - UINT16_MAX);
	if (kind == OPTION_REPLY || kind == CHUNK)
		be32_put(out + len - 4,
			 control & MARK_LENGTH ? claimed : (uint32_t)(payload + zeroes));
	if (kind == EXTENDED_CHUNK)
		be64_put(out + len - 8,
			 control & MARK_LENGTH ? claimed : payload + zeroes);
	memcpy(out + len, in.p, payload);
	memset(out + len + payload, 0, zeroes);
	return len + payload + zeroes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct peer_manner manner;
	struct piece plan;
	size_t at = 0;

	if (!piece_next(data, size, &at, &plan) || !plan.len)
		return 0;
	manner = peer_manner(plan.p[0]);
	client_run(plan.p + 1, plan.len - 1, peer_begin(data + at, size - at, &manner, make));
	peer_end();
	return 0;
}
