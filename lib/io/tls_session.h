/* A TLS session under a transport, for the files of TLS alone. */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/io/tls_credentials.h"
#include "lib/util/buffer.h"

#define RECORD_HEADER	5		/* bytes */
#define RECORD_MAX	16384		/* plaintext bytes of a record ("RFC 8446", 5.1) */
#define IN_SIZE		(128 * 1024)	/* of the socket's bytes at a time: some 8 records */
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
	uint8_t in[IN_SIZE];
	uint8_t stage[RECORD_MAX];	/* small pieces that share a record */
};

/* Forget the session and its keys; the socket stays. */
void tls_free(struct tls *s);
