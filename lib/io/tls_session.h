/* A TLS session under a transport, for the files of TLS alone. */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/io/tls_credentials.h"
#include "lib/record/record.h"
#include "lib/util/buffer.h"

#define IN_SIZE		(64 * 1024)	/* of the socket's bytes at a time: some 4 records */
/* Records gather here, so that a system call sends many; past the first limit the socket is
 * asked to take them before more are made. */
#define OUT_ENOUGH	(128 * 1024)
#define OUT_MAX		(1024 * 1024)

struct tls {
	gnutls_session_t session;
	struct tls_credentials keys;
	char *hostname;
	int fd;
	int io_error;			/* errno of the socket, 0 none */
	bool active;			/* the handshake is complete */
	bool certificate_wanted;	/* by the server, in the handshake */
	bool eof;			/* of the socket */
	bool may_read;			/* the socket is asked once a call */
	bool ended;			/* nothing more can be received: */
	int end;			/* 0 end of file, or -errno */
	char message[TLS_MESSAGE_MAX];	/* in words, when it is an error of TLS */
	struct buffer out;		/* records that the socket has not taken */
	size_t out_first;
	uint8_t header[RECORD_HEADER];	/* of the record that gnutls takes in, */
	size_t header_len;		/* as much as it has of it, */
	size_t record_left;		/* and what it has not of the rest */
	size_t in_first, in_len;	/* bytes of `in` that gnutls has not taken */
	/* Records of our own making: see tls_records.c. */
	bool own;
	bool update_wanted;		/* the server changed its key and asks for ours, too */
	struct record_way receive, send;
	size_t feed;			/* bytes of `in` that gnutls may take */
	size_t plain_first, plain_len;	/* data in `stage` that nobody has taken yet */
	uint8_t in[IN_SIZE];
	/* gnutls' records: small pieces that share one.  Ours: what came out of one. */
	uint8_t stage[RECORD_BODY_MAX];
};

/* Forget the session and its keys; the socket stays. */
void tls_free(struct tls *s);

/* Nothing more can be received; returns R: 0 end of file, or -errno. */
int tls_end(struct tls *s, int r);

/* tls_socket.c: receive what is there, FLAGS as for recv(2): bytes, 0, -errno. */
_must_check_ ssize_t tls_read_socket(struct tls *s, int flags);
/* 0 when the socket took all, or -errno (-EAGAIN: it is full). */
int tls_flush_out(struct tls *s);
/* Let gnutls use these. */
void tls_socket_set(struct tls *s);

/* tls_stream.c: data through records, whoever makes them; as transport_ops. */
size_t tls_pending(struct transport *t);
_must_check_ ssize_t tls_recv(struct transport *t, const struct iovec *iov, size_t n,
			      bool wait);
_must_check_ ssize_t tls_send(struct transport *t, const struct iovec *iov, size_t n);
/* gnutls_record_recv returned ERROR <= 0: -EAGAIN when that is no fault of the connection,
 * else how it ended. */
int tls_receive_error(struct tls *s, int error);

/* A place in what is to be sent. */
struct tls_cursor {
	const struct iovec *iov;
	size_t n, at, offset;
};
/* The next piece, at most MAX bytes; its length, 0 at the end. */
size_t tls_cursor_take(struct tls_cursor *c, size_t max, const uint8_t **ret);

/* tls_take.c: how the records go on, as gnutls has it: 0 or -errno with MESSAGE filled. */
_must_check_ int tls_session_state(struct tls *s, struct nbdd_tls_state *ret,
				   char message[static TLS_MESSAGE_MAX]);

/* tls_records.c: from here on make the records ourselves, if we know how. */
void tls_records_begin(struct tls *s);
/* gnutls goes on with them. */
void tls_records_end(struct tls *s);
/* Something to act on without asking the socket. */
bool tls_records_pending(const struct tls *s);
/* Receive to one piece of memory: bytes, less than LEN when there are no more. */
size_t tls_records_receive(struct tls *s, uint8_t *to, size_t len);
/* Seal one record's worth into s->out: bytes or -errno with s->message. */
_must_check_ ssize_t tls_records_send(struct tls *s, struct tls_cursor *c);
