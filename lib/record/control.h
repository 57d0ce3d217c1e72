/* Records that carry no data: what a peer says on the level of TLS after the handshake. */
#pragma once

#include "lib/record/record.h"

/* Largest session ticket with all around it that is read over, in bytes. */
#define RECORD_TICKET_MAX (64u << 10)

/* A message of the handshake protocol may lie across records (RFC 8446, 5.1). */
struct record_control {
	uint8_t header[4];		/* type and length of the message under way */
	size_t have;			/* bytes of the header */
	size_t left;			/* bytes of the message still to come */
};

/* Take in R, which is not data, or is (then nothing else may be half-read): 0 to go on; 1
 * when the peer says goodbye (close_notify); -EPROTO with r->why for all that ends the
 * connection: a key update, an alert, nonsense. */
_must_check_ int record_control(struct record_control *c, uint16_t version,
				struct record *r);
/* The alert close_notify, to be sealed as a RECORD_ALERT. */
#define RECORD_CLOSE_NOTIFY ((const uint8_t [2]){ 1, 0 })
