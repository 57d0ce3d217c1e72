/* Why TLS failed, in words. */
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "lib/io/tls_credentials.h"

struct tls_attempt {
	gnutls_session_t session;
	const struct tls_credentials *keys;
	const char *hostname;
	bool certificate_wanted;	/* by the server */
	int io_error;		/* errno of the socket's last failure, 0 none */
};

/* MESSAGE for gnutls' ERROR during the handshake; returns -errno. */
int tls_handshake_reason(const struct tls_attempt *a, int error, char *message);

/* The same for one after it. */
int tls_record_reason(gnutls_session_t session, int error, char *message);

/* The server's certificate, to be deinitialized: 0, or negative. */
int tls_peer_certificate(gnutls_session_t session, gnutls_x509_crt_t *ret);
/* The names for which CRT was made: "a, b" in DST. */
void tls_certificate_names(gnutls_x509_crt_t crt, char *dst, size_t size);
