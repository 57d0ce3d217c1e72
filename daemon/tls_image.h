/* Keys and certificates in one piece of memory, as the child that reads the files leaves
 * them to the daemon. */
#pragma once

#include <nbdd.h>
#include "daemon/tls_secrets.h"

/* All of it; the system's file of CAs has some 220 KiB. */
#define TLS_IMAGE_MAX (1u << 20)

enum tls_part {
	TLS_WHERE, TLS_USERNAME,	/* text, its zero included */
	TLS_CA, TLS_CRL, TLS_CERTIFICATE, TLS_KEY, TLS_PSK,
	N_TLS_PARTS
};

struct tls_image {
	uint32_t error;			/* errno; 0: the rest is valid */
	char message[TLS_SECRETS_MESSAGE_MAX];
	uint32_t size[N_TLS_PARTS];	/* bytes, one part behind the other; 0: none */
	uint8_t bytes[];
};

/* Bytes of a whole image, or 0 when it cannot be one. */
size_t tls_image_size(const struct tls_image *image);
/* Where the parts are. */
void tls_image_get(struct tls_image *image, struct nbdd_tls_credentials *ret);
/* Fill IMAGE, of TLS_IMAGE_MAX bytes, from the files that H is set to. */
void tls_image_read(struct nbd_handle *h, struct tls_image *image);
