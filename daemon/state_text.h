/* The first line of a state's text, with its checksum, and addresses as text; for state.c. */
#pragma once

#include <stddef.h>
#include <sys/socket.h>

#include "daemon/state.h"

/* Put the first line before LEN bytes of TEXT.  0, -ENOMEM, -E2BIG. */
_must_check_ int state_seal(const char *text, size_t len, char **ret, size_t *ret_len);
/* Check the first line, and the rest by it; what follows that is filling.  Errors as
 * state_parse. */
_must_check_ int state_unseal(const char *text, size_t len, const char **ret, size_t *ret_len,
			      char error[static STATE_ERROR_MAX]);

/* TO has room for twice LEN and one. */
void state_put_hex(char *to, const void *from, size_t len);
/* Bytes that matter of an address of a family that state_get_address takes, else 0. */
size_t state_address_len(const struct sockaddr_storage *a);
/* 0 or -EINVAL. */
_must_check_ int state_get_address(const char *hex, struct sockaddr_storage *ret,
				   socklen_t *ret_len);
