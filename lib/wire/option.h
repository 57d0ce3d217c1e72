/* Messages of option haggling, packed and unpacked; nothing here does I/O. */
#pragma once

#include <stddef.h>

#include "lib/util/buffer.h"
#include "lib/wire/be.h"
#include "lib/wire/protocol.h"

#define OPTION_SIZE		16	/* "Newstyle negotiation": an option's header */
#define OPTION_REPLY_SIZE	20	/* "Fixed newstyle negotiation": a reply's header */

struct option_reply {
	uint32_t option;
	uint32_t type;
	uint32_t length;	/* of the payload */
};

/* Append the header of OPTION with LENGTH bytes of data.  Errors as buffer_append. */
_must_check_ int option_pack(struct buffer *out, uint32_t option, uint32_t length);

/* Unpack OPTION_REPLY_SIZE bytes at P.  -EPROTO for another magic. */
_must_check_ int option_reply_unpack(const uint8_t *p, struct option_reply *ret);

/* Append numbers and a string with its length before it. */
_must_check_ int pack_u16(struct buffer *out, uint16_t v);
_must_check_ int pack_u32(struct buffer *out, uint32_t v);
_must_check_ int pack_string(struct buffer *out, const char *text);

/* A piece of a message that is being read; what was taken moves `p`. */
struct reader {
	const uint8_t *p;
	size_t left;
};

/* Each returns 0 and moves on, or -EPROTO when fewer bytes are left. */
_must_check_ int read_u16(struct reader *r, uint16_t *ret);
_must_check_ int read_u32(struct reader *r, uint32_t *ret);
_must_check_ int read_u64(struct reader *r, uint64_t *ret);
_must_check_ int read_bytes(struct reader *r, size_t len, const uint8_t **ret);
