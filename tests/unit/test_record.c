/* TLS records made and opened here, against gnutls at the other end. */
#include <errno.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/record/control.h"
#include "tests/unit/tls_pair.h"
#include "tests/unit/unit.h"

#define BUFFER (4 * RECORD_MAX)

struct both {
	struct tls_pair pair;
	struct record_way out, in;
	struct record_control control;
	size_t have;
	uint8_t data[RECORD_PLAIN_MAX], got[RECORD_PLAIN_MAX], buffer[BUFFER];
};

static struct both *begin(uint16_t version, uint16_t cipher)
{
	struct both *b = calloc(1, sizeof(*b));
	struct nbdd_tls_state s;

	CHECK(b);
	tls_pair_make(&b->pair, version, cipher);
	s = tls_pair_state(&b->pair);
	CHECK_INT(record_way_init(&b->out, &s, &s.send), 0);
	CHECK_INT(record_way_init(&b->in, &s, &s.receive), 0);
	CHECK_INT(getrandom(b->data, sizeof(b->data), 0), sizeof(b->data));
	return b;
}

static void end(struct both *b)
{
	record_way_deinit(&b->out);
	record_way_deinit(&b->in);
	tls_pair_free(&b->pair);
	free(b);
}

/* A record of LEN bytes of data, in the buffer. */
static size_t seal(struct both *b, enum record_type type, size_t len)
{
	ssize_t n;

	memcpy(b->buffer + record_prefix(&b->out), b->data, len);
	n = record_seal(&b->out, type, b->buffer, len);
	CHECK_INT(n, record_prefix(&b->out) + len + record_suffix(&b->out));
	return (size_t)n;
}

static void to_server(struct both *b, size_t len)
{
	CHECK_INT(write(b->pair.client_fd, b->buffer, len), len);
}

static void from_server(struct both *b)
{
	ssize_t n = read(b->pair.client_fd, b->buffer + b->have, BUFFER - b->have);

	CHECK(n > 0);
	b->have += (size_t)n;
}

static const size_t sizes[] = { 1, 2, 16, 28, 255, 256, 4096, 16383, 16384 };

TEST(gnutls_takes_our_records)
{
	for (size_t k = 0; k < ARRAY_SIZE(tls_kinds); k++) {
		struct both *b = begin(tls_kinds[k].version, tls_kinds[k].cipher);

		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			to_server(b, seal(b, RECORD_DATA, sizes[i]));
			CHECK_INT(gnutls_record_recv(b->pair.server, b->got, RECORD_PLAIN_MAX),
				  sizes[i]);
			CHECK(memcmp(b->got, b->data, sizes[i]) == 0);
		}
		end(b);
	}
}

TEST(we_take_the_records_of_gnutls)
{
	for (size_t k = 0; k < ARRAY_SIZE(tls_kinds); k++) {
		struct both *b = begin(tls_kinds[k].version, tls_kinds[k].cipher);

		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			struct record r;

			CHECK_INT(gnutls_record_send(b->pair.server, b->data, sizes[i]),
				  sizes[i]);
			from_server(b);
			for (size_t n = 0; n < MIN(b->have, (size_t)30); n++)
				CHECK_INT(record_open(&b->in, b->buffer, n, &r), 0);
			CHECK_INT(record_open(&b->in, b->buffer, b->have - 1, &r), 0);
			CHECK_INT(record_open(&b->in, b->buffer, b->have, &r), 1);
			CHECK_INT(r.type, RECORD_DATA);
			CHECK_INT(r.size, b->have);
			CHECK_INT(r.len, sizes[i]);
			CHECK(memcmp(r.data, b->data, r.len) == 0);
			b->have = 0;
		}
		end(b);
	}
}

TEST(a_record_with_one_bit_changed_is_refused)
{
	for (size_t k = 0; k < ARRAY_SIZE(tls_kinds); k++) {
		struct both *b = begin(tls_kinds[k].version, tls_kinds[k].cipher);
		struct record r;
		uint8_t copy[200];

		CHECK_INT(gnutls_record_send(b->pair.server, b->data, 100), 100);
		from_server(b);
		CHECK(b->have < sizeof(copy));
		memcpy(copy, b->buffer, b->have);
		for (size_t bit = 0; bit < b->have * 8; bit++) {
			/* A longer or shorter length may ask for more bytes. */
			bool length = bit / 8 == 3 || bit / 8 == 4;
			int e;

			memcpy(b->buffer, copy, b->have);
			b->buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
			e = record_open(&b->in, b->buffer, b->have, &r);
			CHECK(e == -EPROTO ? r.why && r.why[0] : e == 0 && length);
		}
		memcpy(b->buffer, copy, b->have);
		CHECK_INT(record_open(&b->in, b->buffer, b->have, &r), 1);
		CHECK_INT(record_open(&b->in, b->buffer, b->have, &r), -EPROTO);
		end(b);
	}
}

/* Seal with the server's keys what gnutls would not send. */
static struct record_way servers_way(struct both *b)
{
	struct nbdd_tls_state s = tls_pair_state(&b->pair);
	struct record_way w;

	CHECK_INT(record_way_init(&w, &s, &s.receive), 0);
	return w;
}

/* What becomes of a message of TYPE from the server with these bytes. */
static int control(struct both *b, struct record_way *w, enum record_type type,
		   const void *data, size_t len, const char **why)
{
	struct record r;
	ssize_t n;
	int e;

	memcpy(b->buffer + record_prefix(w), data, len);
	n = record_seal(w, type, b->buffer, len);
	CHECK(n > 0);
	e = record_open(&b->in, b->buffer, (size_t)n, &r);
	if (e > 0)
		e = record_control(&b->control, b->in.version, &r);
	*why = r.why;
	return e;
}

TEST(padding_is_taken_off)
{
	struct both *b = begin(0x0304, NBDD_TLS_AES_256_GCM);
	struct record_way w = servers_way(b);
	struct record r;
	uint8_t *data = b->buffer + record_prefix(&w);

	/* A record of type 0 is data and type with more zeros behind. */
	memcpy(data, b->data, 1000);
	data[999] = 1;
	data[1000] = RECORD_DATA;
	memset(data + 1001, 0, 200);
	CHECK(record_seal(&w, (enum record_type)0, b->buffer, 1201) > 0);
	CHECK_INT(record_open(&b->in, b->buffer, BUFFER, &r), 1);
	CHECK_INT(r.type, RECORD_DATA);
	CHECK_INT(r.len, 1000);
	memset(data, 0, 500);
	CHECK(record_seal(&w, (enum record_type)0, b->buffer, 500) > 0);
	CHECK_INT(record_open(&b->in, b->buffer, BUFFER, &r), -EPROTO);
	CHECK_STR(r.why, "sent a TLS record without a type");
	record_way_deinit(&w);
	end(b);
}

TEST(tickets_are_read_over_also_in_parts)
{
	struct both *b = begin(0x0304, NBDD_TLS_AES_128_GCM);
	struct record_way w = servers_way(b);
	uint8_t ticket[604] = { 4, 0, 0x02, 0x58 };
	const char *why;

	CHECK_INT(control(b, &w, RECORD_HANDSHAKE, ticket, sizeof(ticket), &why), 0);
	for (size_t i = 0; i < sizeof(ticket); i += 2)
		CHECK_INT(control(b, &w, RECORD_HANDSHAKE, ticket + i, 2, &why), 0);
	CHECK_INT(control(b, &w, RECORD_DATA, "x", 1, &why), 0);
	CHECK_INT(control(b, &w, RECORD_HANDSHAKE, ticket, 300, &why), 0);
	CHECK_INT(control(b, &w, RECORD_DATA, "x", 1, &why), -EPROTO);
	CHECK_STR(why, "broke off a TLS handshake message");
	record_way_deinit(&w);
	end(b);
}

TEST(what_else_a_server_says_ends_the_connection)
{
	static const struct {
		uint16_t version;
		enum record_type type;
		size_t len;
		uint8_t data[5];
		int result;
		const char *why;
	} rows[] = {
		{ 0x0304, RECORD_HANDSHAKE, 5, { 24, 0, 0, 1, 0 }, -EPROTO,
		  "changed its TLS key (KeyUpdate)" },
		{ 0x0304, RECORD_HANDSHAKE, 4, { 4, 0xff, 0, 0 }, -EPROTO,
		  "sent a TLS session ticket that is too long" },
		{ 0x0304, RECORD_HANDSHAKE, 4, { 13, 0, 0, 9 }, -EPROTO,
		  "asked for a certificate after the TLS handshake" },
		{ 0x0304, RECORD_HANDSHAKE, 4, { 1, 0, 0, 9 }, -EPROTO,
		  "sent an unexpected TLS handshake message" },
		{ 0x0304, RECORD_HANDSHAKE, 0, {}, -EPROTO,
		  "sent an empty TLS handshake record" },
		{ 0x0304, RECORD_ALERT, 2, { 1, 0 }, 1, NULL },
		{ 0x0304, RECORD_ALERT, 2, { 2, 80 }, -EPROTO,
		  "sent the TLS alert 'internal error'" },
		{ 0x0304, RECORD_ALERT, 2, { 2, 200 }, -EPROTO, "sent a TLS alert" },
		{ 0x0304, RECORD_ALERT, 3, { 2, 80 }, -EPROTO,
		  "sent a TLS alert of a wrong length" },
		{ 0x0304, RECORD_CHANGE_CIPHER_SPEC, 1, { 1 }, -EPROTO,
		  "sent a TLS record of an unexpected type" },
		{ 0x0303, RECORD_HANDSHAKE, 4, { 0 }, -EPROTO,
		  "asked for another TLS handshake" },
		{ 0x0303, RECORD_HANDSHAKE, 4, { 4, 0, 0, 1 }, -EPROTO,
		  "sent an unexpected TLS handshake message" },
		{ 0x0303, RECORD_ALERT, 2, { 1, 0 }, 1, NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct both *b = begin(rows[i].version, NBDD_TLS_AES_128_GCM);
		struct record_way w = servers_way(b);
		const char *why;

		CHECK_INT(control(b, &w, rows[i].type, rows[i].data, rows[i].len, &why),
			  rows[i].result);
		if (rows[i].why)
			CHECK_STR(why, rows[i].why);
		record_way_deinit(&w);
		end(b);
	}
}

TEST(gnutls_understands_our_goodbye)
{
	for (size_t k = 0; k < ARRAY_SIZE(tls_kinds); k++) {
		struct both *b = begin(tls_kinds[k].version, tls_kinds[k].cipher);

		memcpy(b->data, RECORD_CLOSE_NOTIFY, 2);
		to_server(b, seal(b, RECORD_ALERT, 2));
		CHECK_INT(gnutls_record_recv(b->pair.server, b->got, RECORD_PLAIN_MAX), 0);
		end(b);
	}
}

TEST(a_key_is_not_used_for_more_records_than_it_is_good_for)
{
	struct both *b = begin(0x0304, NBDD_TLS_AES_128_GCM);
	struct record_way w = servers_way(b);
	struct record r;

	b->in.sequence = w.sequence = RECORD_GCM_LIMIT - 1;
	CHECK(record_seal(&w, RECORD_DATA, b->buffer, 10) > 0);
	CHECK_INT(record_open(&b->in, b->buffer, BUFFER, &r), 1);
	CHECK_INT(record_seal(&w, RECORD_DATA, b->buffer, 10), -EOVERFLOW);
	CHECK_INT(record_open(&b->in, b->buffer, BUFFER, &r), -EPROTO);
	record_way_deinit(&w);
	end(b);
	b = begin(0x0304, NBDD_TLS_CHACHA20_POLY1305);
	b->out.sequence = UINT64_MAX;
	CHECK_INT(record_seal(&b->out, RECORD_DATA, b->buffer, 10), -EOVERFLOW);
	CHECK_INT(record_seal(&b->out, RECORD_DATA, b->buffer, RECORD_PLAIN_MAX + 1), -EMSGSIZE);
	end(b);
}

TEST(a_state_that_is_none_is_refused)
{
	struct tls_pair p;
	struct nbdd_tls_state good, s;
	struct record_way w;

	tls_pair_make(&p, 0x0303, NBDD_TLS_AES_128_GCM);
	s = good = tls_pair_state(&p);
	CHECK_INT(record_way_init(&w, &s, &s.send), 0);
	record_way_deinit(&w);
	s.version = 0x0302;
	CHECK_INT(record_way_init(&w, &s, &s.send), -EINVAL);
	s = good;
	s.cipher = 0;
	CHECK_INT(record_way_init(&w, &s, &s.send), -EINVAL);
	s.cipher = 77;
	CHECK_INT(record_way_init(&w, &s, &s.send), -EINVAL);
	s = good;
	s.key_len = 32;
	CHECK_INT(record_way_init(&w, &s, &s.send), -EINVAL);
	s = good;
	s.iv_len = 12;
	CHECK_INT(record_way_init(&w, &s, &s.send), -EINVAL);
	CHECK(!w.aead);
	tls_pair_free(&p);
}
