/* The files of a TLS client. */
#pragma once

#include <nbdd.h>

#include "lib/io/tls.h"

#define TLS_CA_CERT	"ca-cert.pem"
#define TLS_CA_CRL	"ca-crl.pem"
#define TLS_CLIENT_CERT	"client-cert.pem"
#define TLS_CLIENT_KEY	"client-key.pem"

/* Read what CONFIG tells; C is empty where nothing is set or found, and after an error.  0, or
 * -errno with MESSAGE filled. */
_must_check_ int tls_files_read(struct nbdd_tls_credentials *c,
				const struct tls_config *config,
				char message[static TLS_MESSAGE_MAX]);
/* The CAs that the system trusts. */
_must_check_ int tls_files_system_trust(struct nbdd_tls_data *ret,
					char message[static TLS_MESSAGE_MAX]);
/* Wipe and free what is in C. */
void tls_files_wipe(struct nbdd_tls_credentials *c);
