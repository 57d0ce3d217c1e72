/* TLS records done by the kernel (Documentation/networking/tls.rst). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <nbdd.h>
#include "daemon/connector.h"

/* Can the kernel do TLS at all on FD, which may not have begun with it?  If not, WHY of
 * TLS_WHY_MAX bytes is filled. */
bool ktls_possible(int fd, char *why);

/* Have the kernel load each cipher that it has, as its first use does by modprobe: later that
 * may lie on a device that is away.  What it has not is not missed here. */
void ktls_load(void);

/* Give both directions of FD to the kernel.  0; 1 when it cannot, and FD is as it was, with
 * *RET_NO_CIPHER when it would look for a module in vain each time; or -errno when FD is lost.
 * WHY, of TLS_WHY_MAX bytes, is filled unless it is 0. */
_must_check_ int ktls_start(int fd, const struct nbdd_tls_state *state, bool *ret_no_cipher,
			    char *why);

/* Read one block of the export through it, as the kernel's nbd driver will, and leave
 * nothing unread.  0; or -errno with WHY filled: of ktls_by_connection it is no fault of the
 * kernel's TLS. */
_must_check_ int ktls_verify(int fd, const struct export_info *info, char *why);

bool ktls_by_connection(int r);

/* What of the server's the kernel's TLS did not follow. */
enum ktls_end {
	KTLS_END_OTHER,		/* none that can be told: something else ended the connection */
	KTLS_END_ALERT,
	KTLS_END_KEY,		/* another key */
	KTLS_END_TICKET,	/* a late one */
	KTLS_END_HANDSHAKE,	/* another message of the handshake */
	KTLS_END_RECORD,	/* a record that is damaged, or none */
};

/* FD has hung up, with ERROR (errno, or 0): because of what? */
enum ktls_end ktls_end(int fd, int error);

/* How many records its keys have been used for in the direction that has more, when that is
 * limited: 0 (also when it is not), or -errno. */
int ktls_records(int fd, uint64_t *ret);
