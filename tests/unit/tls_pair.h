/* Two ends of a TLS connection by gnutls over a socket pair, in one process: what the code
 * under test is measured by. */
#pragma once

#include <gnutls/gnutls.h>
#include <nbdd.h>

struct tls_pair {
	gnutls_session_t client, server;
	int client_fd, server_fd;		/* not blocking */
	gnutls_certificate_credentials_t client_keys, server_keys;
};

/* VERSION and CIPHER as in struct nbdd_tls_state.  The client has taken in the tickets. */
void tls_pair_make(struct tls_pair *p, uint16_t version, uint16_t cipher);
void tls_pair_free(struct tls_pair *p);
/* How the client's connection goes on. */
struct nbdd_tls_state tls_pair_state(const struct tls_pair *p);

/* Each combination of version and cipher. */
struct tls_kind {
	uint16_t version, cipher;
};
extern const struct tls_kind tls_kinds[6];
