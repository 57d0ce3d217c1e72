/* TLS records done by the kernel (Documentation/networking/tls.rst). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <nbdd.h>
#include "daemon/connector.h"

/* Can the kernel do TLS at all on FD, which may not have begun with it?  If not, WHY of
 * TLS_WHY_MAX bytes is filled. */
bool ktls_possible(int fd, char *why);

/* Give both directions of FD to the kernel.  0; 1 when it cannot, and FD is as it was; or
 * -errno when FD is lost.  WHY has TLS_WHY_MAX bytes. */
_must_check_ int ktls_start(int fd, const struct nbdd_tls_state *state, char *why);

/* Read one block of the export through it, as the kernel's nbd driver will, and leave
 * nothing unread.  0 or -errno with WHY filled. */
_must_check_ int ktls_verify(int fd, const struct export_info *info, char *why);

/* How many records its keys have been used for in the direction that has more, when that is
 * limited: 0 (also when it is not), or -errno. */
int ktls_records(int fd, uint64_t *ret);
