#include "daemon/ktls.h"

#include <endian.h>
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/tls_plan.h"
#include "lib/util/cleanup.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define OWN_SOCKET_MSEC	100

union crypto_info {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes128;
	struct tls12_crypto_info_aes_gcm_256 aes256;
	struct tls12_crypto_info_chacha20_poly1305 chacha;
};

/* RFC 5288 and RFC 8446, 5.3: GCM's nonce is a salt of 4 bytes and 8 that change, which in
 * TLS 1.2 stand in each record and here begin with the sequence number. */
#define FILL_GCM(to, d, tls12, sequence)				\
	do {								\
		memcpy((to).salt, (d)->iv, sizeof((to).salt));		\
		memcpy((to).iv, (tls12) ? (const uint8_t *)&(sequence)	\
			: (d)->iv + sizeof((to).salt), sizeof((to).iv)); \
		memcpy((to).key, (d)->key, sizeof((to).key));		\
		memcpy((to).rec_seq, &(sequence), sizeof((to).rec_seq)); \
	} while (0)

/* Bytes of the filled struct; 0: the state is none that the kernel has. */
static socklen_t fill(union crypto_info *c, const struct nbdd_tls_state *s,
		      const struct nbdd_tls_direction *d)
{
	uint64_t sequence = htobe64(d->sequence);
	bool tls12 = s->version == TLS_1_2_VERSION;

	*c = (union crypto_info) { .info.version = s->version };
	switch ((enum nbdd_tls_cipher)s->cipher) {
	case NBDD_TLS_AES_128_GCM:
		c->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		FILL_GCM(c->aes128, d, tls12, sequence);
		return sizeof(c->aes128);
	case NBDD_TLS_AES_256_GCM:
		c->info.cipher_type = TLS_CIPHER_AES_GCM_256;
		FILL_GCM(c->aes256, d, tls12, sequence);
		return sizeof(c->aes256);
	case NBDD_TLS_CHACHA20_POLY1305:
		c->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
		memcpy(c->chacha.iv, d->iv, sizeof(c->chacha.iv));
		memcpy(c->chacha.key, d->key, sizeof(c->chacha.key));
		memcpy(c->chacha.rec_seq, &sequence, sizeof(c->chacha.rec_seq));
		return sizeof(c->chacha);
	}
	return 0;
}

static int set_direction(int fd, int direction, const struct nbdd_tls_state *s)
{
	const struct nbdd_tls_direction *d = direction == TLS_TX ? &s->send : &s->receive;
	union crypto_info c;
	socklen_t len = fill(&c, s, d);
	int r = len && setsockopt(fd, SOL_TLS, direction, &c, len) == 0 ? 0 :
		len ? -errno : -EINVAL;

	explicit_bzero(&c, sizeof(c));
	return r;
}

/* Without keys the socket stays one of plain TCP. */
bool ktls_possible(int fd, char *why)
{
	int domain = AF_UNIX;
	socklen_t len = sizeof(domain);

	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (domain != AF_INET && domain != AF_INET6) {
		snprintf(why, TLS_WHY_MAX, "its TLS is for TCP alone");
		return false;
	}
	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) < 0 &&
	    errno != EEXIST) {
		snprintf(why, TLS_WHY_MAX, errno == ENOENT ? "its module tls is not loaded"
			 : "TCP_ULP: %s", strerror(errno));
		return false;
	}
	return true;
}

/* A TCP socket that is connected to itself, which needs nobody who listens; or -errno. */
static int own_socket(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr *addr = (struct sockaddr *)&a;
	socklen_t len = sizeof(a);

	if (fd < 0 || bind(fd, addr, len) < 0 || getsockname(fd, addr, &len) < 0)
		return -errno;
	if (connect(fd, addr, len) < 0) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (errno != EINPROGRESS || poll(&p, 1, OWN_SOCKET_MSEC) <= 0)
			return -ETIMEDOUT;
	}
	return STEAL_FD(fd);
}

void ktls_load(void)
{
	static const enum nbdd_tls_cipher ciphers[] = {
		NBDD_TLS_AES_128_GCM, NBDD_TLS_AES_256_GCM, NBDD_TLS_CHACHA20_POLY1305 };
	char why[TLS_WHY_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++) {
		_cleanup_close_ int fd = own_socket();
		struct nbdd_tls_state s = { .version = TLS_1_3_VERSION, .cipher = ciphers[i] };

		if (fd < 0 || !ktls_possible(fd, why))
			return;
		(void)set_direction(fd, TLS_TX, &s);
	}
}

int ktls_start(int fd, const struct nbdd_tls_state *state, bool *ret_no_cipher, char *why)
{
	int r;

	*ret_no_cipher = false;
	if (!ktls_possible(fd, why))
		return 1;
	r = set_direction(fd, TLS_TX, state);
	if (r < 0) {
		snprintf(why, TLS_WHY_MAX, "it does not take this cipher: TLS_TX: %s",
			 strerror(-r));
		*ret_no_cipher = r != -ENOMEM;
		return 1;
	}
	r = set_direction(fd, TLS_RX, state);
	if (r < 0)
		snprintf(why, TLS_WHY_MAX, "TLS_RX: %s", strerror(-r));
	return r;
}

/* RFC 8446, B.1 and B.3 */
enum { RECORD_ALERT = 21, RECORD_HANDSHAKE = 22 };
enum { NEW_SESSION_TICKET = 4, KEY_UPDATE = 24 };

/* By the first byte of one. */
static enum ktls_end handshake_end(uint8_t message)
{
	switch (message) {
	case NEW_SESSION_TICKET:
		return KTLS_END_TICKET;
	case KEY_UPDATE:
		return KTLS_END_KEY;
	}
	return KTLS_END_HANDSHAKE;
}

/* The driver gives up what it cannot read, and the kernel keeps that record; one of data is
 * not the cause.  It is looked at only once the driver has shut the socket down, and stays. */
static enum ktls_end record_left(int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint8_t))];
	uint8_t byte = 0;
	struct iovec iov = { &byte, sizeof(byte) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };
	const struct cmsghdr *c;

	if (recvmsg(fd, &m, MSG_DONTWAIT | MSG_PEEK) < 0)
		return KTLS_END_OTHER;
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_level != SOL_TLS || c->cmsg_type != TLS_GET_RECORD_TYPE)
		return KTLS_END_OTHER;
	switch (*CMSG_DATA(c)) {
	case RECORD_ALERT:
		return KTLS_END_ALERT;
	case RECORD_HANDSHAKE:
		return handshake_end(byte);
	}
	return KTLS_END_OTHER;
}

enum ktls_end ktls_end(int fd, int error)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	if (error == EBADMSG || error == EMSGSIZE || error == EINVAL)
		return KTLS_END_RECORD;
	/* A reset may have come upon it. */
	if ((error && error != ECONNRESET && error != EPIPE) ||
	    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return KTLS_END_OTHER;
	if (info.tcpi_state != TCP_FIN_WAIT1 && info.tcpi_state != TCP_FIN_WAIT2 &&
	    info.tcpi_state != TCP_CLOSING && info.tcpi_state != TCP_CLOSE)
		return KTLS_END_OTHER;
	return record_left(fd);
}

int ktls_records(int fd, uint64_t *ret)
{
	static const int directions[] = { TLS_TX, TLS_RX };

	*ret = 0;
	for (size_t i = 0; i < ARRAY_SIZE(directions); i++) {
		union crypto_info c = {};
		socklen_t len = sizeof(c.info);
		uint64_t sequence;
		bool small;
		int r = 0;

		if (getsockopt(fd, SOL_TLS, directions[i], &c, &len) < 0)
			return -errno;
		small = c.info.cipher_type == TLS_CIPHER_AES_GCM_128;
		if (!small && c.info.cipher_type != TLS_CIPHER_AES_GCM_256)
			return 0;
		len = small ? sizeof(c.aes128) : sizeof(c.aes256);
		if (getsockopt(fd, SOL_TLS, directions[i], &c, &len) < 0)
			r = -errno;
		memcpy(&sequence, small ? c.aes128.rec_seq : c.aes256.rec_seq,
		       sizeof(sequence));
		explicit_bzero(&c, sizeof(c));
		if (r < 0)
			return r;
		*ret = MAX(*ret, be64toh(sequence));
	}
	return 0;
}
