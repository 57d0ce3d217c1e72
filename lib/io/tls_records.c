/* After the handshake the records are made and opened here, straight from and to the caller's
 * memory: gnutls would allocate and copy each one several times.  All else is still its: what
 * is no data (tickets, key updates, alerts), or cannot be opened, is handed to it as it came,
 * with the sequence numbers as they stand; what follows goes by the keys that it has then.
 *
 * Not given to the kernel, though it may have TLS: a kernel before 6.14 cannot follow a change
 * of keys, and the connection of a program that cannot make another one would end where this
 * goes on.  Nor is much to be gained: here 100 MB take some 45 ms of CPU time with the
 * processor's AES, the socket's part included, of which the kernel would save one copy; and in
 * a guest with Linux 6.1, whose ciphers are in C, it took 4 to 15 times as much as this with
 * AES-128-GCM, 1.3 to 3 times with CHACHA20-POLY1305. */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/io/tls_reason.h"
#include "lib/io/tls_session.h"

/* In TLS 1.3 another key is taken before one has served its number of records of AES-GCM
 * ("RFC 8446", 5.5); in TLS 1.2 there is no way, and gnutls knows no limit. */
#define OLD_VERSION 0x0303

static int set_sequences(struct tls *s)
{
	uint64_t receive = htobe64(s->receive.sequence), send = htobe64(s->send.sequence);

	if (gnutls_record_set_state(s->session, 1, (const uint8_t *)&receive) < 0 ||
	    gnutls_record_set_state(s->session, 0, (const uint8_t *)&send) < 0)
		return -EIO;
	return 0;
}

/* Keys, IVs and sequence numbers as gnutls has them: 0 or -errno. */
static int get_ways(struct tls *s)
{
	char message[TLS_MESSAGE_MAX];
	struct nbdd_tls_state state;
	int r = tls_session_state(s, &state, message);

	record_way_deinit(&s->receive);
	record_way_deinit(&s->send);
	if (r == 0)
		r = record_way_init(&s->receive, &state, &state.receive);
	if (r == 0)
		r = record_way_init(&s->send, &state, &state.send);
	explicit_bzero(&state, sizeof(state));
	if (r < 0)
		return r;
	s->receive.limit = UINT64_MAX;
	if (s->send.version == OLD_VERSION)
		s->send.limit = UINT64_MAX;
	return 0;
}

/* RFC 8446, 4.6.3: a key update that requests another is answered before the next data.
 * gnutls would do so when it makes that record. */
static int on_key_update(gnutls_session_t session, unsigned type, unsigned when,
			 unsigned incoming, const gnutls_datum_t *message)
{
	struct tls *s = gnutls_session_get_ptr(session);

	if (incoming && message->size == 1 && message->data[0] == 1)
		s->update_wanted = true;
	return 0;
}

void tls_records_begin(struct tls *s)
{
	/* In the middle of a record is no place to begin. */
	if (s->header_len || s->record_left || gnutls_record_check_pending(s->session))
		return;
	s->own = get_ways(s) == 0;
	if (s->own)
		gnutls_handshake_set_hook_function(s->session, GNUTLS_HANDSHAKE_KEY_UPDATE,
						   GNUTLS_HOOK_PRE, on_key_update);
}

void tls_records_end(struct tls *s)
{
	if (!s->own)
		return;
	if (set_sequences(s) < 0)
		tls_end(s, -EIO);
	s->own = false;
}

/* The size of the first record in s->in, 0 when it is not all there.  What is no record at
 * all counts as one of all there is: gnutls finds the words. */
static size_t first_record(const struct tls *s)
{
	const uint8_t *p = s->in + s->in_first;
	size_t body;

	if (s->in_len < RECORD_HEADER)
		return 0;
	body = (size_t)p[3] << 8 | p[4];
	if (body > RECORD_BODY_MAX)
		return s->in_len;
	return s->in_len < RECORD_HEADER + body ? 0 : RECORD_HEADER + body;
}

bool tls_records_pending(const struct tls *s)
{
	return s->plain_len || first_record(s);
}

/* Let gnutls act on the SIZE bytes at the front of s->in. */
static void hand_over(struct tls *s, size_t size)
{
	ssize_t r;

	if (set_sequences(s) < 0) {
		tls_end(s, -EIO);
		return;
	}
	s->feed = size;
	do {
		size = s->feed;
		r = gnutls_record_recv(s->session, s->stage, sizeof(s->stage));
	} while (r < 0 && tls_receive_error(s, (int)r) == -EAGAIN && s->feed &&
		 s->feed < size);
	if (r == 0)
		tls_receive_error(s, 0);
	if (r > 0)
		s->plain_len = (size_t)r;
	if (!s->ended && s->feed)
		tls_end(s, tls_fail(s->message, -EPROTO, "TLS: server sent a record that "
				    "cannot be understood"));
	if (!s->ended && get_ways(s) < 0)
		tls_end(s, tls_fail(s->message, -EIO, "TLS: no keys to go on with"));
}

/* Open the first record, of SIZE bytes: straight to TO when there is room for it, else to
 * s->stage.  Bytes at TO. */
static size_t open_record(struct tls *s, size_t size, uint8_t *to, size_t len)
{
	bool direct = size >= record_prefix(&s->receive) + 16 &&
		      record_room(&s->receive, size) <= len;
	struct record r;

	s->plain_first = 0;
	if (record_open_to(&s->receive, s->in + s->in_first, size, direct ? to : s->stage,
			   &r) == 1) {
		if (r.type == RECORD_DATA) {
			s->in_first += size;
			s->in_len -= size;
			s->plain_len = direct ? 0 : r.len;
			return direct ? r.len : 0;
		}
		s->receive.sequence--;		/* gnutls counts it */
	}
	hand_over(s, size);
	return 0;
}

static size_t take_plain(struct tls *s, uint8_t *to, size_t len)
{
	len = MIN(len, s->plain_len);
	memcpy(to, s->stage + s->plain_first, len);
	s->plain_first += len;
	s->plain_len -= len;
	return len;
}

/* Ask the socket, once a call: is there something new? */
static bool read_more(struct tls *s)
{
	ssize_t r;

	if (!s->eof && !s->may_read)
		return false;
	s->may_read = false;
	r = s->eof ? 0 : tls_read_socket(s, MSG_DONTWAIT);
	if (r > 0)
		return true;
	if (r != -EAGAIN)
		tls_end(s, (int)r);
	return false;
}

size_t tls_records_receive(struct tls *s, uint8_t *to, size_t len)
{
	size_t got = 0, size;

	while (got < len && !s->ended) {
		if (s->plain_len)
			got += take_plain(s, to + got, len - got);
		else if ((size = first_record(s)))
			got += open_record(s, size, to + got, len - got);
		else if (!read_more(s))
			break;
	}
	return got;
}

/* Another key, before the present one is worn out, or because the server wants it. */
static int renew_key(struct tls *s)
{
	int r = set_sequences(s);

	s->update_wanted = false;
	if (r == 0)
		r = gnutls_session_key_update(s->session, 0);
	if (r < 0)
		return tls_fail(s->message, -EIO, "TLS: the key cannot be changed: %s",
				gnutls_strerror(r));
	return get_ways(s);
}

ssize_t tls_records_send(struct tls *s, struct tls_cursor *c)
{
	size_t prefix, len = 0, part = 1;
	const uint8_t *p;
	uint8_t *record;
	ssize_t r;

	if ((s->update_wanted || s->send.sequence >= s->send.limit - 1) &&
	    (r = renew_key(s)) < 0)
		return r;
	prefix = record_prefix(&s->send);
	if (buffer_reserve(&s->out, prefix + RECORD_PLAIN_MAX + RECORD_SUFFIX_MAX) < 0)
		return tls_fail(s->message, -ENOMEM, "TLS: no memory for a record");
	record = s->out.data + s->out.len;
	while (len < RECORD_PLAIN_MAX && part) {
		part = tls_cursor_take(c, RECORD_PLAIN_MAX - len, &p);
		memcpy(record + prefix + len, p, part);
		len += part;
	}
	r = record_seal(&s->send, RECORD_DATA, record, len);
	if (r < 0)
		return tls_fail(s->message, (int)r, "TLS: a record cannot be made");
	s->out.len += (size_t)r;
	return (ssize_t)len;
}
