/* The connections of rawlimit: made and ended by hand. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/bench/bytes.h"

#define REQUEST		28	/* bytes of a request without its payload */

/* A request of TYPE at P; returns where it ends. */
static inline uint8_t *put_request(uint8_t *p, uint32_t type, uint64_t cookie, uint64_t offset,
				   uint32_t length)
{
	p = put32(p, 0x25609513);
	p = put32(p, type);
	p = put64(p, cookie);
	p = put64(p, offset);
	return put32(p, length);
}

/* A blocking socket in the transmission phase of the default export, with structured replies
 * unless SIMPLE.  URI is of the form nbd+unix:///?socket=PATH or nbd://ADDRESS:PORT.  Ends
 * the program when anything fails. */
int rawlink_open(const char *uri, bool simple);

/* Tell the server that it is over, and close FD. */
void rawlink_close(int fd);
