/* TLS under a transport, with gnutls at the other end in a process of its own. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/io/tls.h"
#include "lib/io/tls_session.h"
#include "tests/unit/unit.h"

#define RECORDS 40
#define LENGTH 1000		/* bytes of data in each */

static char key_text[] = "000102030405060708090a0b0c0d0e0f";

static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
	key->data = gnutls_malloc(16);
	key->size = 16;
	for (uint8_t i = 0; i < 16; i++)
		key->data[i] = i;
	return 0;
}

/* A server that sends back what it gets, until the client goes. */
static void echo(int fd, const char *priority)
{
	gnutls_psk_server_credentials_t psk;
	gnutls_session_t session;
	uint8_t data[16384];
	ssize_t r;

	gnutls_init(&session, GNUTLS_SERVER);
	gnutls_psk_allocate_server_credentials(&psk);
	gnutls_psk_set_server_credentials_function(psk, find_key);
	gnutls_credentials_set(session, GNUTLS_CRD_PSK, psk);
	gnutls_priority_set_direct(session, priority, NULL);
	gnutls_transport_set_int(session, fd);
	if (gnutls_handshake(session) < 0)
		_exit(1);
	do {
		r = gnutls_record_recv(session, data, sizeof(data));
		if (r > 0 && gnutls_record_send(session, data, (size_t)r) != r)
			_exit(2);
	} while (r > 0 || (r < 0 && !gnutls_error_is_fatal((int)r)));
	_exit(r == 0 ? 0 : 3);
}

static pid_t begin(struct transport *t, const char *priority)
{
	struct nbdd_tls_credentials keys = { .username = (char *)"alice",
					     .psk = { key_text, sizeof(key_text) - 1 } };
	struct tls_config config = { .credentials = &keys };
	char message[TLS_MESSAGE_MAX];
	int fd[2], r;
	pid_t pid;

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	pid = fork();
	if (pid == 0) {
		close(fd[0]);
		echo(fd[1], priority);
	}
	close(fd[1]);
	CHECK_INT(transport_plain(t, fd[0]), 0);
	if (tls_start(t, &config, message) < 0)
		FAIL("%s", message);
	while ((r = tls_handshake(t, message)) == -EAGAIN)
		CHECK(t->ops->fill(t) >= 0);
	if (r < 0)
		FAIL("%s", message);
	return pid;
}

static void end(struct transport *t, pid_t pid)
{
	int status;

	transport_close(t);
	CHECK_INT(waitpid(pid, &status, 0), pid);
	CHECK_INT(status, 0);
}

static void receive(struct transport *t, uint8_t *to, size_t len)
{
	while (len) {
		struct iovec iov = { to, len };
		ssize_t r = t->ops->recv(t, &iov, 1, false);

		if (r == -EAGAIN) {
			CHECK(t->ops->fill(t) > 0);
			continue;
		}
		CHECK(r > 0);
		to += r;
		len -= (size_t)r;
	}
}

/* RECORDS of them, each LENGTH bytes, there and back. */
static void round_trip(struct transport *t)
{
	static uint8_t sent[LENGTH], got[LENGTH];

	for (unsigned i = 0; i < RECORDS; i++) {
		struct iovec iov = { sent, LENGTH };

		memset(sent, (int)i, LENGTH);
		CHECK_INT(t->ops->send(t, &iov, 1), LENGTH);
		receive(t, got, LENGTH);
		CHECK(memcmp(sent, got, LENGTH) == 0);
	}
}

TEST(a_key_is_changed_before_it_is_worn_out)
{
	struct transport t;
	pid_t pid = begin(&t, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK");

	CHECK(t.tls->own);
	for (int i = 0; i < 3; i++) {
		uint64_t before = t.tls->send.sequence;

		t.tls->send.limit = before + 10;
		round_trip(&t);
		/* Counted anew by another key, which has its own limit. */
		CHECK(t.tls->send.sequence < RECORDS && t.tls->send.limit > RECORDS * 2);
	}
	end(&t, pid);
}

TEST(tls_1_2_has_no_limit)
{
	struct transport t;
	pid_t pid = begin(&t, "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK");

	CHECK(t.tls->own && t.tls->send.limit == UINT64_MAX);
	round_trip(&t);
	end(&t, pid);
}

TEST(gnutls_goes_on_where_our_records_end_and_they_where_it_does)
{
	struct transport t;
	pid_t pid = begin(&t, "NORMAL:+ECDHE-PSK");

	for (int i = 0; i < 3; i++) {
		CHECK(t.tls->own);
		round_trip(&t);
		tls_records_end(t.tls);
		CHECK(!t.tls->own);
		round_trip(&t);
		tls_records_begin(t.tls);
	}
	end(&t, pid);
}

TEST(another_cipher_is_left_to_gnutls)
{
	struct transport t;
	pid_t pid = begin(&t, "NORMAL:-CIPHER-ALL:+AES-128-CCM:+ECDHE-PSK");

	CHECK(!t.tls->own);
	round_trip(&t);
	end(&t, pid);
}

TEST(a_record_in_pieces_is_awaited)
{
	static uint8_t data[16384], got[16384];
	struct iovec iov = { data, sizeof(data) };
	struct transport t;
	pid_t pid = begin(&t, "NORMAL:+ECDHE-PSK");
	int fd[2], real = t.fd;
	ssize_t n;

	CHECK_INT(t.ops->send(&t, &iov, 1), sizeof(data));
	CHECK_INT(poll(&(struct pollfd) { .fd = real, .events = POLLIN }, 1, 5000), 1);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	t.tls->fd = fd[0];
	iov.iov_base = got;
	for (size_t total = 0; total < sizeof(data);) {
		uint8_t byte;
		ssize_t r;

		n = recv(real, &byte, 1, 0);
		CHECK_INT(n, 1);
		CHECK_INT(send(fd[1], &byte, 1, 0), 1);
		r = t.ops->recv(&t, &iov, 1, false);
		if (r == -EAGAIN) {
			CHECK_INT(t.ops->pending(&t), 0);
			continue;
		}
		CHECK(r > 0);
		total += (size_t)r;
		iov = (struct iovec) { got + total, sizeof(got) - total };
	}
	CHECK(memcmp(data, got, sizeof(data)) == 0);
	t.tls->fd = real;
	end(&t, pid);
}
