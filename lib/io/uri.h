/* NBD URIs ("NBD URI specification"): text to struct nbdd_uri and back. */
#pragma once

#include <nbdd.h>

#include "lib/util/macro.h"

#define NBD_PORT		"10809"		/* registered by IANA */
#define VSOCK_CID_HOST		2
#define URI_MESSAGE_MAX		512

/* Parse TEXT.  0 and *RET for uri_free; or -errno, and why in MESSAGE: -EINVAL what is not
 * an NBD URI, -ENOTSUP no libxml2 or a transport that this library has not. */
_must_check_ int uri_parse(const char *text, struct nbdd_uri **ret,
			   char message[static URI_MESSAGE_MAX]);
void uri_free(struct nbdd_uri *u);

/* The scheme of a transport, without or with TLS. */
const char *uri_scheme(int transport, bool tls);

/* Could TEXT be meant as an NBD URI?  Looks at the scheme only. */
bool uri_looks_like(const char *text);

/* The URI for U, to be freed; NULL when out of memory. */
char *uri_format(const struct nbdd_uri *u);
