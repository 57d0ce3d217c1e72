#include "tests/fuzz/tls_peer.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "lib/wire/be.h"
#include "lib/wire/message.h"
#include "lib/wire/option.h"
#include "tests/fuzz/promise.h"
#include "tests/fuzz/wrap.h"

#define QUEUE_MAX	(4u << 20)
#define REPLY_MAX	(256u << 10)
#define CALLS_AFTER_END_MAX 64
#define SLOW_RECEIVES	5000	/* then it would only take long */
#define KEY_UPDATES_MAX	6	/* gnutls takes 8 a second for an attack */
#define TICKETS_MAX	64

struct queue {
	uint8_t data[QUEUE_MAX];
	size_t first, len;
};

static struct tls_peer {
	int fd;
	struct input *in;
	gnutls_session_t session;	/* NULL: in the clear */
	bool secure;			/* the TLS handshake is over */
	bool had_flags, transmission;
	bool calm;			/* nothing was done that ends a connection */
	bool over;			/* no more comes from here */
	size_t receive_max;		/* bytes a receive gives, 0: any number */
	unsigned receives, calls_after_end, key_updates, tickets;
	uint64_t skip;			/* payload of the client's that is to come */
	struct queue to_client, from_client, plain;
} peer = { .fd = -1 };

static void put(struct queue *q, const void *data, size_t len)
{
	if (q->first + q->len + len > QUEUE_MAX) {
		memmove(q->data, q->data + q->first, q->len);
		q->first = 0;
	}
	/* A client that asks for so much without reading gets no more. */
	if (q->len + len > QUEUE_MAX) {
		peer.over = true;
		peer.calm = false;
		return;
	}
	memcpy(q->data + q->first + q->len, data, len);
	q->len += len;
}

static size_t get(struct queue *q, void *data, size_t len)
{
	len = len < q->len ? len : q->len;
	if (data)
		memcpy(data, q->data + q->first, len);
	q->first += len;
	q->len -= len;
	return len;
}

/* ---- TLS ---- */

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	put(&peer.to_client, data, len);
	return (ssize_t)len;
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t len)
{
	if (peer.from_client.len)
		return (ssize_t)get(&peer.from_client, data, len);
	gnutls_transport_set_errno(peer.session, EAGAIN);
	return -1;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned msec)
{
	return peer.from_client.len > 0;
}

static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
	key->data = gnutls_malloc(16);
	key->size = 16;
	memset(key->data, 0x11, 16);
	return 0;
}

static const char *const priorities[] = {
	"NORMAL:-KX-ALL:+PSK:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM",
	"NORMAL:-KX-ALL:+PSK:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305",
	"NORMAL:-KX-ALL:+PSK:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM",
	"NORMAL:-KX-ALL:+PSK:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-CCM",
};

static void begin_tls(void)
{
	static gnutls_psk_server_credentials_t keys;
	static gnutls_datum_t ticket_key;

	if (!keys) {
		PROMISE(gnutls_psk_allocate_server_credentials(&keys) == 0);
		gnutls_psk_set_server_credentials_function(keys, find_key);
		PROMISE(gnutls_session_ticket_key_generate(&ticket_key) == 0);
	}
	PROMISE(gnutls_init(&peer.session, GNUTLS_SERVER | GNUTLS_NONBLOCK) == 0);
	PROMISE(gnutls_credentials_set(peer.session, GNUTLS_CRD_PSK, keys) == 0);
	PROMISE(gnutls_priority_set_direct(peer.session, priorities[input_byte(peer.in) % 4],
					   NULL) == 0);
	gnutls_session_ticket_enable_server(peer.session, &ticket_key);
	gnutls_transport_set_push_function(peer.session, push);
	gnutls_transport_set_pull_function(peer.session, pull);
	gnutls_transport_set_pull_timeout_function(peer.session, pull_timeout);
	gnutls_handshake_set_timeout(peer.session, GNUTLS_INDEFINITE_TIMEOUT);
}

static void wrong(void)
{
	peer.calm = false;
}

static void stop(void)
{
	wrong();
	peer.over = true;
}

/* The byte AT from the end of what was said is another one. */
static void spoil(size_t at)
{
	if (at >= peer.to_client.len)
		return;
	peer.to_client.data[peer.to_client.first + peer.to_client.len - 1 - at] ^= 0x40;
	wrong();
}

static void raw(size_t n)
{
	uint8_t bytes[64] = {};

	for (size_t i = 0; i < n; i++)
		bytes[i] = input_byte(peer.in);
	put(&peer.to_client, bytes, n);
	if (n)
		wrong();
}

/* What a server may do, and may not. */
static void event(void)
{
	uint8_t what = input_byte(peer.in), argument = what >> 4;

	switch (what & 15) {
	case 1:
	case 2:
		if (peer.key_updates++ < KEY_UPDATES_MAX)
			gnutls_session_key_update(peer.session,
						  (what & 15) == 1 ? 0 : GNUTLS_KU_PEER);
		break;
	case 3:
		if (peer.tickets++ < TICKETS_MAX)
			gnutls_session_ticket_send(peer.session, 1, 0);
		break;
	case 4:
		if (gnutls_protocol_get_version(peer.session) == GNUTLS_TLS1_2)
			gnutls_rehandshake(peer.session);
		break;
	case 5:
		gnutls_alert_send(peer.session, GNUTLS_AL_WARNING, GNUTLS_A_USER_CANCELED);
		wrong();	/* in TLS 1.3 it is an end */
		break;
	case 6:
		gnutls_alert_send(peer.session, GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR);
		stop();
		break;
	case 7:
		gnutls_bye(peer.session, GNUTLS_SHUT_WR);
		stop();
		break;
	case 8:
		raw(argument * 4);
		break;
	case 9:
		stop();
		break;
	default:
		break;
	}
}

/* Data in records of a length that the input says. */
static void send_secure(const uint8_t *data, size_t len)
{
	static const size_t lengths[] = { 16384, 16384, 4096, 1000, 16383, 37, 500, 8192 };
	size_t most = lengths[input_byte(peer.in) % 8];

	event();
	while (len && !peer.over) {
		size_t part = len < most ? len : most;

		if (gnutls_record_send(peer.session, data, part) < 0) {
			stop();
			return;
		}
		data += part;
		len -= part;
	}
	if (input_byte(peer.in) == 0xff)
		spoil(input_byte(peer.in));
}

/* ---- NBD ---- */

static void say(const void *data, size_t len)
{
	if (peer.secure)
		send_secure(data, len);
	else
		put(&peer.to_client, data, len);
}

static void answer(uint32_t option, uint32_t type, const void *data, uint32_t len)
{
	uint8_t reply[20 + 64];

	be64_put(reply, 0x3e889045565a9);
	be32_put(reply + 8, option);
	be32_put(reply + 12, type);
	be32_put(reply + 16, len);
	memcpy(reply + 20, data, len);
	say(reply, 20 + len);
}

static void agree_to_tls(void)
{
	switch (input_byte(peer.in)) {
	case 1:
		answer(NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "no", 2);
		wrong();
		return;
	case 2:
		answer(NBD_OPT_STARTTLS, NBD_REP_ACK, "?", 1);
		wrong();
		return;
	case 3:
		answer(NBD_OPT_GO, NBD_REP_ACK, "", 0);
		wrong();
		return;
	case 4:
		answer(NBD_OPT_STARTTLS, NBD_REP_INFO, "", 0);
		wrong();
		break;
	case 5:
		answer(NBD_OPT_STARTTLS, NBD_REP_ACK, "", 0);
		raw(1 + input_byte(peer.in) % 63);
		break;
	case 6:
		raw(20 + input_byte(peer.in) % 40);
		return;
	default:
		answer(NBD_OPT_STARTTLS, NBD_REP_ACK, "", 0);
	}
	begin_tls();
}

static void answer_option(uint32_t option)
{
	uint8_t info[12];

	if (option == NBD_OPT_STARTTLS && !peer.session) {
		agree_to_tls();
	} else if (option == NBD_OPT_GO && peer.secure) {
		be16_put(info, NBD_INFO_EXPORT);
		be64_put(info + 2, TLS_PEER_SIZE);
		be16_put(info + 10, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
		answer(option, NBD_REP_INFO, info, sizeof(info));
		answer(option, NBD_REP_ACK, "", 0);
		peer.transmission = true;
	} else if (option == NBD_OPT_ABORT) {
		answer(option, NBD_REP_ACK, "", 0);
	} else {
		answer(option, peer.secure ? NBD_REP_ERR_UNSUP : NBD_REP_ERR_TLS_REQD, "", 0);
	}
}

static void answer_request(const uint8_t *p)
{
	static uint8_t reply[16 + REPLY_MAX];
	uint64_t offset = be64_get(p + 16);
	uint32_t len = be32_get(p + 24);
	uint16_t type = be16_get(p + 6);

	PROMISE(be32_get(p) == NBD_REQUEST_MAGIC);
	if (type == NBD_CMD_DISC) {
		peer.over = true;
		return;
	}
	if (type == NBD_CMD_WRITE)
		peer.skip = len;
	be32_put(reply, NBD_SIMPLE_REPLY_MAGIC);
	be32_put(reply + 4, 0);
	be64_put(reply + 8, be64_get(p + 8));
	PROMISE(type != NBD_CMD_READ || len <= REPLY_MAX);
	for (uint32_t i = 0; i < len && type == NBD_CMD_READ; i++)
		reply[16 + i] = (uint8_t)(offset + i);
	say(reply, 16 + (type == NBD_CMD_READ ? len : 0));
}

/* Act on what the client has said, as far as it is complete. */
static bool act(void)
{
	struct queue *q = peer.secure ? &peer.plain : &peer.from_client;
	const uint8_t *p = q->data + q->first;

	if (peer.skip) {
		peer.skip -= get(q, NULL, peer.skip);
		return !peer.skip;
	}
	if (!peer.had_flags) {
		if (q->len < 4)
			return false;
		get(q, NULL, 4);
		peer.had_flags = true;
	} else if (peer.transmission) {
		if (q->len < REQUEST_SIZE)
			return false;
		get(q, NULL, REQUEST_SIZE);
		answer_request(p);
	} else {
		if (q->len < OPTION_SIZE || q->len - OPTION_SIZE < be32_get(p + 12))
			return false;
		get(q, NULL, OPTION_SIZE + be32_get(p + 12));
		answer_option(be32_get(p + 8));
	}
	return true;
}

static void shake_hands(void)
{
	size_t before = peer.to_client.len;
	int r = gnutls_handshake(peer.session);

	if (r == 0)
		peer.secure = true;
	else if (gnutls_error_is_fatal(r))
		stop();
	if (peer.to_client.len != before && input_byte(peer.in) == 0xff)
		spoil(input_byte(peer.in));
}

static void open_records(void)
{
	static uint8_t data[16384];
	ssize_t r;

	do {
		r = gnutls_record_recv(peer.session, data, sizeof(data));
		if (r > 0)
			put(&peer.plain, data, (size_t)r);
	} while (r > 0 || (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal((int)r)));
	/* What the client says is right, as long as it was not lied to. */
	PROMISE(!peer.calm || r == GNUTLS_E_AGAIN || r == 0);
	if (r != GNUTLS_E_AGAIN)
		peer.over = true;
}

static void work(void)
{
	if (peer.over)
		return;
	if (peer.session && !peer.secure && peer.from_client.len)
		shake_hands();
	if (peer.secure && !peer.over)
		open_records();
	if (peer.session && !peer.secure)
		return;
	while (!peer.over && act()) {
		if (peer.session && !peer.secure)
			return;
	}
}

int tls_peer_begin(struct input *in)
{
	static const size_t receive_max[] = { 0, 0, 1, 7, 600, 17000 };

	PROMISE(peer.fd < 0);
	memset(&peer, 0, offsetof(struct tls_peer, to_client));
	peer.to_client.len = peer.from_client.len = peer.plain.len = 0;
	peer.in = in;
	peer.calm = true;
	peer.receive_max = receive_max[input_byte(in) % 6];
	peer.fd = eventfd(0, EFD_CLOEXEC);
	PROMISE(peer.fd >= 0);
	put(&peer.to_client, "NBDMAGICIHAVEOPT\0\3", 18);
	return peer.fd;
}

bool tls_peer_end(void)
{
	peer.fd = -1;
	if (peer.session)
		gnutls_deinit(peer.session);
	peer.session = NULL;
	return peer.calm;
}

/* ---- the client's system calls (--wrap) ---- */

static ssize_t failed(int error)
{
	errno = error;
	return -1;
}

ssize_t peer_take(const struct iovec *iov, size_t n)
{
	size_t total = 0;

	if (peer.over && !peer.to_client.len)
		return failed(EPIPE);
	for (size_t i = 0; i < n; i++) {
		put(&peer.from_client, iov[i].iov_base, iov[i].iov_len);
		total += iov[i].iov_len;
	}
	work();
	return (ssize_t)total;
}

ssize_t peer_give(const struct iovec *iov, size_t n, int flags)
{
	bool slow = peer.receive_max && ++peer.receives < SLOW_RECEIVES;
	size_t left = slow ? peer.receive_max : SIZE_MAX, given = 0;

	/* Who would wait for ever for a server that has said all hears the end. */
	if (!peer.to_client.len && !peer.over && !(flags & MSG_DONTWAIT))
		stop();
	if (!peer.to_client.len && peer.over) {
		PROMISE(++peer.calls_after_end < CALLS_AFTER_END_MAX);
		return 0;
	}
	if (!peer.to_client.len)
		return failed(EAGAIN);
	for (size_t i = 0; i < n && left && peer.to_client.len; i++) {
		size_t len = iov[i].iov_len < left ? iov[i].iov_len : left;

		len = get(&peer.to_client, iov[i].iov_base, len);
		left -= len;
		given += len;
	}
	PROMISE(given);
	return (ssize_t)given;
}

bool peer_is(int fd)
{
	return fd == peer.fd;
}

int peer_poll(struct pollfd *fds, int timeout)
{
	if (!peer.to_client.len && !peer.over && !(fds->events & POLLOUT) && timeout)
		stop();
	fds->revents = fds->events & POLLOUT;
	if (peer.to_client.len || peer.over)
		fds->revents |= POLLIN;
	return fds->revents != 0;
}
