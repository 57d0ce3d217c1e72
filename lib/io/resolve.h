/* Names to addresses. */
#pragma once

#include <nbdd.h>

#include "lib/util/macro.h"

/* Addresses of HOST and PORT (names or numbers) in the order in which to try them: as the
 * system sorts them (RFC 6724), families alternating (RFC 8305, section 4); at most
 * DIAL_ADDRESSES_MAX.  0 and *RET to be freed; or getaddrinfo's error for gai_strerror. */
_must_check_ int resolve(const char *host, const char *port, struct nbdd_address **ret,
			 size_t *ret_n);

/* The address of a Unix socket.  0, -EINVAL for an empty path, -ENAMETOOLONG. */
_must_check_ int unix_address(const char *path, struct nbdd_address *ret);
