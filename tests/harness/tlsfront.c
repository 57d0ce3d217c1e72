/* tlsfront LISTEN UPSTREAM CREDENTIALS PRIORITY [EVENT...]: TLS in front of an NBD server that
 * has none, and what servers may do on the level of TLS while data flows.
 *
 *	LISTEN, UPSTREAM	unix:PATH or tcp:PORT (0: any; the line `listening` tells)
 *	CREDENTIALS		psk:FILE or x509:DIRECTORY (server-cert.pem, server-key.pem)
 *	EVENT			N:WHAT, at each N-th time that data goes to the client, or
 *				=N:WHAT, at the N-th time alone; WHAT is a row of `events`
 *
 * A process a connection; each may end in any way without harm to others. */
#include <arpa/inet.h>
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CHUNK		(256 * 1024)	/* bytes taken from upstream at a time */
#define OUT_MAX		(1024 * 1024)
#define OPTION_DATA_MAX	65536
#define EVENTS_MAX	8

#define OPT_STARTTLS	5
#define REP_ACK		1
#define REP_ERR_TLS_REQD 0x80000005u

/* Bytes that a socket has not taken yet. */
struct out {
	uint8_t data[OUT_MAX];
	size_t first, len;
};

struct front {
	gnutls_session_t session;
	int client, upstream;
	struct out to_client, to_upstream;
	unsigned batches;		/* how often data went to the client */
	bool over;
};

static void append(struct out *o, const void *data, size_t len)
{
	if (o->first + o->len + len > OUT_MAX) {
		memmove(o->data, o->data + o->first, o->len);
		o->first = 0;
	}
	if (o->len + len > OUT_MAX)
		errx(1, "%zu bytes for a full buffer", len);
	memcpy(o->data + o->first + o->len, data, len);
	o->len += len;
}

/* Send what FD takes; false when it is gone. */
static bool flush(struct out *o, int fd)
{
	while (o->len) {
		ssize_t r = send(fd, o->data + o->first, o->len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r < 0)
			return errno == EAGAIN;
		o->first += (size_t)r;
		o->len -= (size_t)r;
	}
	o->first = 0;
	return true;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	append(&((struct front *)ptr)->to_client, data, len);
	return (ssize_t)len;
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t len)
{
	struct front *f = ptr;
	ssize_t r = recv(f->client, data, len, MSG_DONTWAIT);

	if (r < 0)
		gnutls_transport_set_errno(f->session, errno);
	return r;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned msec)
{
	struct pollfd p = { .fd = ((struct front *)ptr)->client, .events = POLLIN };

	return poll(&p, 1, (int)msec);
}

/* ---- events ---- */

static void key_update(struct front *f)
{
	gnutls_session_key_update(f->session, 0);
}

static void key_update_both(struct front *f)
{
	gnutls_session_key_update(f->session, GNUTLS_KU_PEER);
}

static void ticket(struct front *f)
{
	gnutls_session_ticket_send(f->session, 1, 0);
}

static void rehandshake(struct front *f)
{
	gnutls_rehandshake(f->session);		/* TLS 1.2: only asks the client for one */
}

static void warning(struct front *f)
{
	gnutls_alert_send(f->session, GNUTLS_AL_WARNING, GNUTLS_A_USER_CANCELED);
}

static void fatal(struct front *f)
{
	gnutls_alert_send(f->session, GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR);
	f->over = true;
}

static void bye(struct front *f)
{
	gnutls_bye(f->session, GNUTLS_SHUT_WR);
	f->over = true;
}

/* A record that nobody made with the key. */
static void garbage(struct front *f)
{
	uint8_t record[5 + 64] = { 23, 3, 3, 0, 64 };

	append(&f->to_client, record, sizeof(record));
}

static void half(struct front *f)
{
	append(&f->to_client, "\x17\x03\x03\x04\x00only this", 14);
	f->over = true;
}

static void in_the_clear(struct front *f)
{
	append(&f->to_client, "\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\1", 16);
}

static void end(struct front *f)
{
	f->over = true;
}

static const struct event_row {
	const char *name;
	void (*happen)(struct front *f);
} events[] = {
	{ "keyupdate", key_update }, { "keyupdate-both", key_update_both },
	{ "ticket", ticket }, { "rehandshake", rehandshake }, { "warning", warning },
	{ "fatal", fatal }, { "bye", bye }, { "garbage", garbage }, { "half", half },
	{ "clear", in_the_clear }, { "end", end },
};

struct event {
	unsigned when;
	bool once;
	const struct event_row *row;
};

static struct event parse_event(const char *text)
{
	struct event e = { .once = *text == '=' };
	char *rest;

	e.when = (unsigned)strtoul(text + e.once, &rest, 10);
	for (size_t i = 0; *rest == ':' && i < sizeof(events) / sizeof(events[0]); i++)
		if (!strcmp(events[i].name, rest + 1))
			e.row = &events[i];
	if (!e.row || !e.when)
		errx(2, "%s: no such event", text);
	return e;
}

/* What goes before the next data. */
static void happen(struct front *f, const struct event *e, size_t n)
{
	f->batches++;
	for (size_t i = 0; i < n && !f->over; i++)
		if (e[i].once ? f->batches == e[i].when : f->batches % e[i].when == 0)
			e[i].row->happen(f);
}

/* ---- the data ---- */

/* From upstream to the client; false at the end. */
static bool forward(struct front *f, const struct event *e, size_t n)
{
	static uint8_t data[CHUNK];
	ssize_t r = recv(f->upstream, data, sizeof(data), MSG_DONTWAIT);

	if (r <= 0)
		return r < 0 && errno == EAGAIN;
	happen(f, e, n);
	for (size_t at = 0; at < (size_t)r && !f->over;) {
		ssize_t sent = gnutls_record_send(f->session, data + at, (size_t)r - at);

		if (sent < 0 && gnutls_error_is_fatal((int)sent))
			return false;
		at += sent > 0 ? (size_t)sent : 0;
	}
	return !f->over;
}

/* From the client to upstream; false at the end. */
static bool back(struct front *f)
{
	static uint8_t data[CHUNK];
	ssize_t r;

	do {
		r = gnutls_record_recv(f->session, data, sizeof(data));
		if (r > 0)
			append(&f->to_upstream, data, (size_t)r);
	} while (r > 0 && f->to_upstream.len < CHUNK);
	if (r < 0 && !gnutls_error_is_fatal((int)r))
		return true;
	return r > 0;
}

static void relay(struct front *f, const struct event *e, size_t n)
{
	bool go_on = true;

	while (go_on) {
		bool waiting = gnutls_record_check_pending(f->session) > 0;
		bool take = f->to_upstream.len < CHUNK;
		struct pollfd p[] = {
			{ .fd = f->client, .events = take ? POLLIN : 0 },
			{ .fd = f->upstream, .events = f->to_client.len ? 0 : POLLIN },
		};

		if (f->to_client.len)
			p[0].events |= POLLOUT;
		if (f->to_upstream.len)
			p[1].events |= POLLOUT;
		if (poll(p, 2, waiting && take ? 0 : -1) < 0)
			err(1, "poll");
		if (p[1].revents & (POLLIN | POLLHUP))
			go_on = forward(f, e, n);
		if (go_on && take && (waiting || p[0].revents & (POLLIN | POLLHUP)))
			go_on = back(f);
		if (!flush(&f->to_client, f->client) || !flush(&f->to_upstream, f->upstream))
			return;
	}
}

/* ---- the start of a connection ---- */

static void receive(int fd, void *data, size_t len)
{
	if (len && recv(fd, data, len, MSG_WAITALL) != (ssize_t)len)
		exit(0);
}

static void answer(int fd, uint32_t option, uint32_t type)
{
	struct { uint64_t magic; uint32_t option, type, length; } __attribute__((packed)) r = {
		htobe64(0x3e889045565a9), htobe32(option), htobe32(type), 0,
	};

	if (send(fd, &r, sizeof(r), MSG_NOSIGNAL) != sizeof(r))
		exit(0);
}

/* NBD's negotiation until the client wants TLS; its flags. */
static uint32_t await_starttls(int fd)
{
	struct { uint64_t magic; uint32_t option, length; } __attribute__((packed)) option;
	static uint8_t data[OPTION_DATA_MAX];
	uint32_t flags;

	if (send(fd, "NBDMAGICIHAVEOPT\0\3", 18, MSG_NOSIGNAL) != 18)
		exit(0);
	receive(fd, &flags, sizeof(flags));
	for (;;) {
		receive(fd, &option, sizeof(option));
		if (be32toh(option.length) > sizeof(data))
			exit(0);
		receive(fd, data, be32toh(option.length));
		if (be32toh(option.option) == OPT_STARTTLS) {
			answer(fd, OPT_STARTTLS, REP_ACK);
			return flags;
		}
		answer(fd, be32toh(option.option), REP_ERR_TLS_REQD);
	}
}

static union address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_in in;
} parse_address(const char *text, socklen_t *ret_len)
{
	union address a = {};

	if (!strncmp(text, "unix:", 5)) {
		a.un.sun_family = AF_UNIX;
		snprintf(a.un.sun_path, sizeof(a.un.sun_path), "%s", text + 5);
		*ret_len = sizeof(a.un);
	} else if (!strncmp(text, "tcp:", 4)) {
		a.in.sin_family = AF_INET;
		a.in.sin_port = htons((uint16_t)atoi(text + 4));
		a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*ret_len = sizeof(a.in);
	} else {
		errx(2, "%s: neither unix: nor tcp:", text);
	}
	return a;
}

/* A connection to UPSTREAM, past the hello. */
static int connect_upstream(const char *upstream, uint32_t flags)
{
	socklen_t len;
	union address a = parse_address(upstream, &len);
	int fd = socket(a.any.sa_family, SOCK_STREAM, 0);
	uint8_t hello[18];

	if (fd < 0 || connect(fd, &a.any, len))
		err(1, "%s", upstream);
	receive(fd, hello, sizeof(hello));
	if (send(fd, &flags, sizeof(flags), MSG_NOSIGNAL) != sizeof(flags))
		exit(0);
	return fd;
}

/* Each key that the client takes, as a line of output. */
static int on_key_update(gnutls_session_t session, unsigned type, unsigned when,
			 unsigned incoming, const gnutls_datum_t *message)
{
	if (incoming && dprintf(STDOUT_FILENO, "client changed its key\n") < 0)
		return GNUTLS_E_PUSH_ERROR;
	return 0;
}

static void check(int r)
{
	if (r < 0)
		errx(1, "gnutls: %s", gnutls_strerror(r));
}

static void set_credentials(gnutls_session_t s, const char *text)
{
	if (!strncmp(text, "psk:", 4)) {
		gnutls_psk_server_credentials_t c;

		check(gnutls_psk_allocate_server_credentials(&c));
		check(gnutls_psk_set_server_credentials_file(c, text + 4));
		check(gnutls_credentials_set(s, GNUTLS_CRD_PSK, c));
	} else {
		gnutls_certificate_credentials_t c;
		char cert[4096], key[4096];

		snprintf(cert, sizeof(cert), "%s/server-cert.pem", text + 5);
		snprintf(key, sizeof(key), "%s/server-key.pem", text + 5);
		check(gnutls_certificate_allocate_credentials(&c));
		check(gnutls_certificate_set_x509_key_file(c, cert, key, GNUTLS_X509_FMT_PEM));
		check(gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, c));
	}
}

static void handshake(struct front *f, const char *credentials, const char *priority)
{
	gnutls_datum_t key;
	int r;

	check(gnutls_init(&f->session, GNUTLS_SERVER | GNUTLS_NONBLOCK));
	set_credentials(f->session, credentials);
	check(gnutls_priority_set_direct(f->session, priority, NULL));
	check(gnutls_session_ticket_key_generate(&key));
	check(gnutls_session_ticket_enable_server(f->session, &key));
	gnutls_transport_set_ptr(f->session, f);
	gnutls_transport_set_push_function(f->session, push);
	gnutls_transport_set_pull_function(f->session, pull);
	gnutls_transport_set_pull_timeout_function(f->session, pull_timeout);
	gnutls_handshake_set_timeout(f->session, GNUTLS_INDEFINITE_TIMEOUT);
	do {
		struct pollfd p = { .fd = f->client, .events = POLLIN };

		r = gnutls_handshake(f->session);
		if (!flush(&f->to_client, f->client))
			exit(0);
		if (r == GNUTLS_E_AGAIN)
			poll(&p, 1, -1);
	} while (r < 0 && !gnutls_error_is_fatal(r));
	if (r < 0)
		exit(0);
	gnutls_handshake_set_hook_function(f->session, GNUTLS_HANDSHAKE_KEY_UPDATE,
					   GNUTLS_HOOK_PRE, on_key_update);
}

static void serve(int fd, char **argv, const struct event *e, size_t n)
{
	static struct front f;
	uint32_t flags = await_starttls(fd);

	f.client = fd;
	handshake(&f, argv[3], argv[4]);
	f.upstream = connect_upstream(argv[2], flags);
	relay(&f, e, n);
	flush(&f.to_client, f.client);
	exit(0);
}

int main(int argc, char **argv)
{
	struct event e[EVENTS_MAX];
	union address a;
	socklen_t len;
	int listener;

	if (argc < 5 || argc > 5 + EVENTS_MAX)
		errx(2, "usage: tlsfront LISTEN UPSTREAM CREDENTIALS PRIORITY [EVENT...]");
	for (int i = 5; i < argc; i++)
		e[i - 5] = parse_event(argv[i]);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGCHLD, SIG_IGN);
	a = parse_address(argv[1], &len);
	listener = socket(a.any.sa_family, SOCK_STREAM, 0);
	if (listener < 0 || bind(listener, &a.any, len) || listen(listener, 64) ||
	    getsockname(listener, &a.any, &len))
		err(1, "%s", argv[1]);
	if (a.any.sa_family == AF_INET)
		printf("listening %d\n", ntohs(a.in.sin_port));
	else
		printf("listening %s\n", argv[1] + 5);
	fflush(stdout);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			serve(fd, argv, e, (size_t)argc - 5);
		}
		close(fd);
	}
}
