/* The keys and certificates of a TLS client. */
#pragma once

#include <gnutls/gnutls.h>

#include "lib/io/tls.h"

struct tls_credentials {
	gnutls_certificate_credentials_t x509;	/* each NULL: not used */
	gnutls_psk_client_credentials_t psk;
	gnutls_anon_client_credentials_t anonymous;
	char *where;		/* of the certificates: a directory, NULL: the system's */
	char *username;		/* of the pre-shared key */
};

/* From CONFIG's memory or files: 0, or -errno with MESSAGE filled; nothing is left to be freed
 * then. */
_must_check_ int tls_credentials_load(struct tls_credentials *k, const struct tls_config *config,
				      char message[static TLS_MESSAGE_MAX]);
void tls_credentials_free(struct tls_credentials *k);

/* Fill MESSAGE and return R. */
_printf_(3, 4) int tls_fail(char *message, int r, const char *format, ...);
