/* Any bytes as TLS records: as they stand, and as what a server with the right keys could put
 * into records.  Nothing is read past the end, what is refused is refused in words, and what
 * was sealed comes out the same.
 *
 * Input: a byte that chooses version and cipher, then pieces of a kind, a length (two bytes)
 * and bytes; the last may be cut short. */
#include <errno.h>
#include <string.h>

#include "lib/record/control.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/promise.h"

enum kind { RAW, DATA, HANDSHAKE, ALERT, INNER, OTHER, CHANGED, CUT, N_KINDS };

struct peer {
	struct record_way ours, theirs;
	struct record_control control;
	uint8_t *buffer;		/* exactly as long as what is in it */
	size_t len, taken;
	size_t sent, got;		/* bytes of data */
	bool honest;			/* nothing but well-made data so far */
};

static void begin(struct peer *p, uint8_t choice)
{
	struct nbdd_tls_state s = { .version = choice & 1 ? 0x0303 : 0x0304,
				    .cipher = (uint16_t)(1 + (choice >> 1) % 3) };

	s.key_len = s.cipher == NBDD_TLS_AES_128_GCM ? 16 : 32;
	s.iv_len = s.version == 0x0303 && s.cipher != NBDD_TLS_CHACHA20_POLY1305 ? 4 : 12;
	s.send.sequence = choice & 0x80 ? RECORD_GCM_LIMIT - 2 : choice;
	*p = (struct peer){ .honest = true };
	PROMISE(record_way_init(&p->ours, &s, &s.send) == 0);
	PROMISE(record_way_init(&p->theirs, &s, &s.send) == 0);
}

static void append(struct peer *p, const uint8_t *bytes, size_t len)
{
	uint8_t *more = malloc(p->len + len + 1);

	PROMISE(more);
	if (p->len)
		memcpy(more, p->buffer, p->len);
	if (len)
		memcpy(more + p->len, bytes, len);
	free(p->buffer);
	p->buffer = more;
	p->len += len;
}

static void send_record(struct peer *p, enum kind kind, const uint8_t *bytes, size_t len)
{
	static const uint8_t types[] = {
		[DATA] = RECORD_DATA, [HANDSHAKE] = RECORD_HANDSHAKE, [ALERT] = RECORD_ALERT,
		[INNER] = 0, [OTHER] = 99, [CHANGED] = RECORD_DATA, [CUT] = RECORD_DATA,
	};
	uint8_t record[RECORD_MAX + 64];
	ssize_t n;

	memcpy(record + record_prefix(&p->theirs), bytes, len);
	n = record_seal(&p->theirs, types[kind], record, len);
	if (n < 0) {
		PROMISE(n == -EOVERFLOW && p->theirs.sequence == p->theirs.limit);
		return;
	}
	PROMISE((size_t)n == record_prefix(&p->theirs) + len + record_suffix(&p->theirs));
	if (kind == CHANGED)
		record[len % (size_t)n] ^= (uint8_t)(1u << len % 8);
	if (kind == CUT)
		n -= (ssize_t)(len % (size_t)n);
	if (kind == DATA && p->honest)
		p->sent += len;
	p->honest &= kind == DATA;
	append(p, record, (size_t)n);
}

/* One record from the front: false when there is none, or it ended the connection. */
static bool receive(struct peer *p)
{
	struct record r;
	uint8_t *copy;
	int e;

	/* From memory of the very size, so that a read past its end is seen. */
	copy = malloc(p->len - p->taken + !(p->len - p->taken));
	PROMISE(copy);
	if (p->len > p->taken)
		memcpy(copy, p->buffer + p->taken, p->len - p->taken);
	e = record_open(&p->ours, copy, p->len - p->taken, &r);
	PROMISE(e == 1 || e == 0 || e == -EPROTO);
	PROMISE((e < 0) == (r.why != NULL));
	if (e == 1) {
		PROMISE(r.size <= p->len - p->taken && r.size <= RECORD_MAX);
		PROMISE(r.len <= RECORD_PLAIN_MAX && r.data >= copy + RECORD_HEADER &&
			r.data + r.len <= copy + r.size);
		p->taken += r.size;
		p->got += r.type == RECORD_DATA ? r.len : 0;
		e = record_control(&p->control, p->ours.version, &r);
		PROMISE(e == 0 || e == 1 || (e == -EPROTO && r.why && r.why[0]));
		PROMISE(e < 0 || p->control.left <= RECORD_TICKET_MAX);
		PROMISE(r.type != RECORD_DATA || e <= 0);
		e = e == 0;
	}
	PROMISE(!p->honest || e >= 0);
	free(copy);
	return e == 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct peer p;

	if (!size)
		return 0;
	begin(&p, data[0]);
	data++;
	size--;
	while (size >= 3) {
		enum kind kind = data[0] % N_KINDS;
		size_t len = (size_t)data[1] << 8 | data[2];

		len = MIN(len, size - 3);	/* a record takes more than an input is long */
		if (kind == RAW) {
			p.honest &= !len;
			append(&p, data + 3, len);
		} else {
			send_record(&p, kind, data + 3, len);
		}
		data += 3 + len;
		size -= 3 + len;
	}
	while (receive(&p))
		;
	PROMISE(!p.honest || (p.got == p.sent && p.taken == p.len));
	record_way_deinit(&p.ours);
	record_way_deinit(&p.theirs);
	free(p.buffer);
	return 0;
}
