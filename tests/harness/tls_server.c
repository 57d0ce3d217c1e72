/* An NBD server with TLS that misbehaves when it is told to:
 *
 *   tls_server PORT CERTIFICATES PRIORITY FILE CONTROL
 *
 * serves FILE.  The word in the file CONTROL is what goes wrong at the next request, or for
 * words that end in `-at-go` behind the last reply of the negotiation; the file is removed
 * when it is done, once a word. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DATA_MAX	(32u << 20)
#define OPTION_MAX	8192u

struct server {
	const char *control, *priority;
	gnutls_certificate_credentials_t keys;
	gnutls_datum_t ticket_key;
	gnutls_session_t session;
	int sock, file;
	uint64_t size;
	bool cut;			/* the next record is sent by half */
	char word[64];
	uint8_t *data;
};

static void __attribute__((noreturn)) quit(const char *why)
{
	fprintf(stderr, "tls_server: %s\n", why);
	_exit(1);
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	struct server *s = ptr;

	if (s->cut) {
		(void)!send(s->sock, data, len / 2, MSG_NOSIGNAL);
		shutdown(s->sock, SHUT_RDWR);
		quit("half a record was sent");
	}
	return send(s->sock, data, len, MSG_NOSIGNAL);
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t len)
{
	const struct server *s = ptr;

	return recv(s->sock, data, len, 0);
}

static void receive(struct server *s, void *buf, size_t len)
{
	uint8_t *to = buf;

	while (len) {
		ssize_t r = s->session ? gnutls_record_recv(s->session, to, len)
				       : recv(s->sock, to, len, 0);

		if (s->session && (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED))
			continue;
		if (r <= 0)
			quit(s->session && r < 0 ? gnutls_strerror((int)r) : "the client left");
		to += r;
		len -= (size_t)r;
	}
}

static void transmit(struct server *s, const void *buf, size_t len)
{
	const uint8_t *from = buf;

	while (len) {
		ssize_t r = s->session ? gnutls_record_send(s->session, from, len)
				       : send(s->sock, from, len, MSG_NOSIGNAL);

		if (r <= 0)
			quit("cannot send");
		from += r;
		len -= (size_t)r;
	}
}

/* ---- what goes wrong --------------------------------------------------------------- */

static void ticket(struct server *s)
{
	if (gnutls_session_ticket_send(s->session, 1, 0) < 0)
		quit("no ticket");
}

static void key_update(struct server *s)
{
	if (gnutls_session_key_update(s->session, 0) < 0)
		quit("no key update");
}

static void key_update_of_both(struct server *s)
{
	if (gnutls_session_key_update(s->session, GNUTLS_KU_PEER) < 0)
		quit("no key update");
}

static void alert(struct server *s)
{
	gnutls_alert_send(s->session, GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR);
}

static void warning(struct server *s)
{
	gnutls_alert_send(s->session, GNUTLS_AL_WARNING, GNUTLS_A_USER_CANCELED);
}

static void bye(struct server *s)
{
	gnutls_bye(s->session, GNUTLS_SHUT_WR);
}

static void raw(struct server *s, const void *data, size_t len)
{
	(void)!send(s->sock, data, len, MSG_NOSIGNAL);
}

static void garbage(struct server *s)
{
	raw(s, "this is no record of TLS at all, but a sentence that is long enough", 66);
}

static void garbage_record(struct server *s)
{
	static const uint8_t record[5 + 64] = { 23, 3, 3, 0, 64 };

	raw(s, record, sizeof(record));
}

static void empty_record(struct server *s)
{
	raw(s, (const uint8_t[5]){ 23, 3, 3, 0, 0 }, 5);
}

static void giant_record(struct server *s)
{
	raw(s, (const uint8_t[5]){ 23, 3, 3, 0xff, 0xff }, 5);
}

static void half(struct server *s)
{
	s->cut = true;
}

static void half_header(struct server *s)
{
	raw(s, (const uint8_t[3]){ 23, 3, 3 }, 3);
	shutdown(s->sock, SHUT_RDWR);
	quit("half a header was sent");
}

/* The reply that is due, in the clear. */
static void plain(struct server *s)
{
	static const uint8_t reply[16] = { 0x67, 0x44, 0x66, 0x98 };

	raw(s, reply, sizeof(reply));
}

static const struct {
	const char *word;
	void (*act)(struct server *s);
} acts[] = {
	{ "ticket", ticket }, { "key-update", key_update },
	{ "key-update-of-both", key_update_of_both }, { "alert", alert },
	{ "warning", warning }, { "bye", bye }, { "garbage", garbage },
	{ "garbage-record", garbage_record }, { "empty-record", empty_record },
	{ "giant-record", giant_record }, { "half", half }, { "half-header", half_header },
	{ "plain", plain },
};

/* Is there a word for this place?  It holds once. */
static void misbehave(struct server *s, const char *suffix)
{
	FILE *f = fopen(s->control, "r");
	size_t len;

	if (!f)
		return;
	if (!fgets(s->word, sizeof(s->word), f))
		s->word[0] = '\0';
	fclose(f);
	len = strcspn(s->word, "\n");
	s->word[len] = '\0';
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
		size_t n = strlen(acts[i].word);

		if (strncmp(s->word, acts[i].word, n) != 0 || strcmp(s->word + n, suffix) != 0)
			continue;
		unlink(s->control);
		fprintf(stderr, "tls_server: %s\n", s->word);
		acts[i].act(s);
	}
}

/* ---- NBD --------------------------------------------------------------------------- */

static void option_reply(struct server *s, uint32_t option, uint32_t type, const void *data,
			 uint32_t len)
{
	struct { uint64_t magic; uint32_t option, type, len; } __attribute__((packed)) head = {
		htobe64(0x3e889045565a9), htobe32(option), htobe32(type), htobe32(len) };
	uint8_t all[sizeof(head) + 64];

	memcpy(all, &head, sizeof(head));
	memcpy(all + sizeof(head), data ? data : "", data ? len : 0);
	transmit(s, all, sizeof(head) + len);
}

static void start_tls(struct server *s)
{
	gnutls_session_t session;
	int r;

	if (gnutls_init(&session, GNUTLS_SERVER) < 0 ||
	    gnutls_priority_set_direct(session, s->priority, NULL) < 0 ||
	    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, s->keys) < 0 ||
	    gnutls_session_ticket_enable_server(session, &s->ticket_key) < 0)
		quit("cannot set up TLS");
	gnutls_transport_set_ptr(session, s);
	gnutls_transport_set_push_function(session, push);
	gnutls_transport_set_pull_function(session, pull);
	do
		r = gnutls_handshake(session);
	while (r < 0 && !gnutls_error_is_fatal(r));
	if (r < 0)
		gnutls_alert_send_appropriate(session, r);
	if (r < 0)
		quit(gnutls_strerror(r));
	s->session = session;
}

static void go(struct server *s, uint32_t option)
{
	struct { uint16_t type; uint64_t size; uint16_t flags; } __attribute__((packed)) info = {
		0, htobe64(s->size), htobe16(1 | 1 << 2 | 1 << 3) };

	option_reply(s, option, 3, &info, sizeof(info));
	option_reply(s, option, 1, NULL, 0);
}

static void negotiate(struct server *s)
{
	struct { uint64_t magic; uint32_t option, len; } __attribute__((packed)) head;
	uint8_t data[OPTION_MAX];
	uint32_t flags, option = 0;

	transmit(s, "NBDMAGICIHAVEOPT\0\3", 18);
	receive(s, &flags, sizeof(flags));
	while (option != 7) {
		receive(s, &head, sizeof(head));
		if (be32toh(head.len) > sizeof(data))
			quit("an option that is too long");
		receive(s, data, be32toh(head.len));
		option = be32toh(head.option);
		if (option == 5 && !s->session) {
			option_reply(s, option, 1, NULL, 0);
			start_tls(s);
		} else if (!s->session) {
			option_reply(s, option, 0x80000005, NULL, 0);
			option = 0;
		} else if (option == 7 || option == 6) {
			go(s, option);
		} else {
			option_reply(s, option, 0x80000001, NULL, 0);
		}
	}
}

static void serve(struct server *s)
{
	struct { uint32_t magic; uint16_t flags, type; uint64_t cookie, offset; uint32_t len; }
		__attribute__((packed)) q;
	struct { uint32_t magic, error; uint64_t cookie; } __attribute__((packed)) a = {
		htobe32(0x67446698) };
	bool ok = true;

	receive(s, &q, sizeof(q));
	q.len = be32toh(q.len);
	q.offset = be64toh(q.offset);
	if (q.magic != htobe32(0x25609513) || q.len > DATA_MAX)
		quit("a request that makes no sense");
	a.cookie = q.cookie;
	switch (be16toh(q.type)) {
	case 0:
		ok = pread(s->file, s->data + sizeof(a), q.len, (off_t)q.offset) == (ssize_t)q.len;
		break;
	case 1:
		receive(s, s->data, q.len);
		ok = pwrite(s->file, s->data, q.len, (off_t)q.offset) == (ssize_t)q.len;
		break;
	case 2:
		quit("the client says goodbye");
	default:
		break;
	}
	a.error = ok ? 0 : htobe32(5);
	misbehave(s, "");
	memcpy(s->data, &a, sizeof(a));
	transmit(s, s->data, sizeof(a) + (ok && q.type == 0 ? q.len : 0));
}

static void __attribute__((noreturn)) connection(struct server *s)
{
	negotiate(s);
	misbehave(s, "-at-go");
	for (;;)
		serve(s);
}

static void load_keys(struct server *s, const char *dir)
{
	char cert[4096], key[4096];

	snprintf(cert, sizeof(cert), "%s/server-cert.pem", dir);
	snprintf(key, sizeof(key), "%s/server-key.pem", dir);
	if (gnutls_certificate_allocate_credentials(&s->keys) < 0 ||
	    gnutls_certificate_set_x509_key_file(s->keys, cert, key, GNUTLS_X509_FMT_PEM) < 0 ||
	    gnutls_session_ticket_key_generate(&s->ticket_key) < 0)
		quit("cannot read the certificate");
}

static int listen_on(const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* A process that was forked just before its server was killed may hold the port still. */
	for (int i = 0; bind(sock, (struct sockaddr *)&a, sizeof(a)) < 0; i++) {
		if (errno != EADDRINUSE || i == 100)
			quit("cannot bind");
		usleep(100000);
	}
	if (listen(sock, 16) < 0)
		quit("cannot listen");
	return sock;
}

int main(int argc, char **argv)
{
	struct server s = { .data = malloc(DATA_MAX + 64) };
	struct stat st;
	int sock;

	if (argc != 6 || !s.data)
		quit("tls_server PORT CERTIFICATES PRIORITY FILE CONTROL");
	load_keys(&s, argv[2]);
	s.priority = argv[3];
	s.file = open(argv[4], O_RDWR | O_CLOEXEC);
	s.control = argv[5];
	if (s.file < 0 || fstat(s.file, &st) < 0)
		quit("cannot open the file");
	s.size = (uint64_t)st.st_size;
	signal(SIGCHLD, SIG_IGN);
	sock = listen_on(argv[1]);
	for (;;) {
		s.sock = accept(sock, NULL, NULL);
		if (s.sock >= 0 && fork() == 0) {
			close(sock);
			connection(&s);
		}
		close(s.sock);
	}
}
