/* A server with TLS by gnutls, in the place of the system calls on the client's socket.  The
 * input says what goes wrong, on the level of TLS and on the way to it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the input is read, a byte at a time; zeroes behind its end. */
struct input {
	const uint8_t *p;
	size_t len;
};

static inline uint8_t input_byte(struct input *in)
{
	if (!in->len)
		return 0;
	in->len--;
	return *in->p++;
}

/* Begin a session: the client's descriptor. */
int tls_peer_begin(struct input *in);
/* The client has closed it.  Did the server do nothing that ends a connection? */
bool tls_peer_end(void);

#define TLS_PEER_SIZE (1u << 20)	/* of the export; each byte is its offset's lowest */
