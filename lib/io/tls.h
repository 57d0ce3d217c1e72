/* TLS over a connected transport, by gnutls.  The session's lock is held in every call
 * except the transport's fill. */
#pragma once

#include <stdbool.h>
#include <nbdd.h>
#include <stddef.h>

#include "lib/io/transport.h"
#include "lib/util/macro.h"

#define TLS_MESSAGE_MAX 600

/* What the user asked for; NULL: not set. */
/* Files of any name, in place of a directory; NULL where there is none. */
struct tls_named_files {
	char *ca, *certificate, *key;
};

struct tls_config {
	bool verify_peer;
	const char *hostname;		/* as it stands in the server's certificate */
	struct tls_named_files files;
	const char *certificates;	/* directory */
	const char *psk_file, *username;
	/* Then no file is read. */
	const struct nbdd_tls_credentials *credentials;
	const char *priority;		/* of gnutls; NULL: NORMAL */
};

/* Put TLS on top of the plain transport T, which stays as it is at an error: read the keys,
 * begin the handshake.  0, or -errno with MESSAGE filled. */
_must_check_ int tls_start(struct transport *t, const struct tls_config *config,
			   char message[static TLS_MESSAGE_MAX]);

/* Go on with the handshake: 0 when TLS is active, -EAGAIN, or -errno with MESSAGE filled. */
_must_check_ int tls_handshake(struct transport *t, char message[static TLS_MESSAGE_MAX]);

/* Version, key exchange and cipher, to be freed; NULL when out of memory. */
char *tls_description(struct transport *t);

/* The server hung up right after the handshake: 0 when that says nothing of TLS, or -errno with
 * MESSAGE filled. */
int tls_hang_up_reason(struct transport *t, char message[static TLS_MESSAGE_MAX]);

/* What nbdd_get_tls_info tells. */
void tls_info(struct transport *t, struct nbdd_tls_info *ret);

/* Take in messages of TLS that have arrived already: 0 when nothing of the server's is left
 * anywhere, or -errno with MESSAGE filled. */
_must_check_ int tls_settle(struct transport *t, char message[static TLS_MESSAGE_MAX]);
/* How the records go on: 0, or -errno with MESSAGE filled. */
_must_check_ int tls_state(struct transport *t, struct nbdd_tls_state *ret,
			   char message[static TLS_MESSAGE_MAX]);
/* Free the session without a word to the server; the transport's socket is the caller's. */
_must_check_ int tls_abandon(struct transport *t);
