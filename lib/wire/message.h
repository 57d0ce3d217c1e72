/* Messages of the transmission phase, packed and unpacked; nothing here does I/O. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/wire/be.h"
#include "lib/wire/protocol.h"

#define REQUEST_SIZE			28	/* "Request message" */
#define EXTENDED_REQUEST_SIZE		32
#define SIMPLE_REPLY_SIZE		16	/* "Simple reply message" */
#define CHUNK_SIZE			20	/* "Structured reply chunk message" */
#define EXTENDED_CHUNK_SIZE		32

struct request {
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint64_t length;
};

/* Write the compact request to P of REQUEST_SIZE bytes; the length has 32 bits. */
static inline void request_pack(uint8_t *p, const struct request *r)
{
	be32_put(p, NBD_REQUEST_MAGIC);
	be16_put(p + 4, r->flags);
	be16_put(p + 6, r->type);
	be64_put(p + 8, r->cookie);
	be64_put(p + 16, r->offset);
	be32_put(p + 24, (uint32_t)r->length);
}

/* The same of EXTENDED_REQUEST_SIZE bytes ("Extended headers"). */
static inline void request_pack_extended(uint8_t *p, const struct request *r)
{
	be32_put(p, NBD_EXTENDED_REQUEST_MAGIC);
	be16_put(p + 4, r->flags);
	be16_put(p + 6, r->type);
	be64_put(p + 8, r->cookie);
	be64_put(p + 16, r->offset);
	be64_put(p + 24, r->length);
}

/* The header of a reply of any of the three forms. */
struct reply {
	uint32_t magic;
	uint16_t flags;		/* chunks; a simple reply counts as the last one */
	uint16_t type;
	uint32_t error;		/* simple replies */
	uint64_t cookie;
	uint64_t offset;	/* extended headers */
	uint64_t length;	/* of the payload that follows the header */
	size_t size;		/* of the header itself */
};

/* How long the header that starts with MAGIC is, 0 for an unknown magic. */
static inline size_t reply_header_size(uint32_t magic)
{
	switch (magic) {
	case NBD_STRUCTURED_REPLY_MAGIC:
		return CHUNK_SIZE;
	case NBD_SIMPLE_REPLY_MAGIC:
		return SIMPLE_REPLY_SIZE;
	case NBD_EXTENDED_REPLY_MAGIC:
		return EXTENDED_CHUNK_SIZE;
	default:
		return 0;
	}
}

/* Unpack the header at P, which is reply_header_size(MAGIC) bytes long. */
static inline void reply_unpack(const uint8_t *p, uint32_t magic, struct reply *r)
{
	r->magic = magic;
	r->cookie = be64_get(p + 8);
	if (magic == NBD_SIMPLE_REPLY_MAGIC) {
		r->size = SIMPLE_REPLY_SIZE;
		r->error = be32_get(p + 4);
		r->flags = NBD_REPLY_FLAG_DONE;
		r->type = NBD_REPLY_TYPE_NONE;
		r->length = 0;
		return;
	}
	r->error = 0;
	r->flags = be16_get(p + 4);
	r->type = be16_get(p + 6);
	if (magic == NBD_STRUCTURED_REPLY_MAGIC) {
		r->size = CHUNK_SIZE;
		r->length = be32_get(p + 16);
	} else {
		r->size = EXTENDED_CHUNK_SIZE;
		r->offset = be64_get(p + 16);
		r->length = be64_get(p + 24);
	}
}

/* An error chunk's payload ("NBD_REPLY_TYPE_ERROR", "NBD_REPLY_TYPE_ERROR_OFFSET"). */
struct error_chunk {
	uint32_t error;
	const char *message;	/* not terminated, not to be trusted */
	size_t message_length;
	uint64_t offset;
};

/* 0, or -EPROTO when the payload contradicts itself. */
int error_chunk_unpack(const uint8_t *p, size_t len, uint16_t type, struct error_chunk *ret);

/* The errno for an NBD error value; EINVAL for one that is not of the protocol
 * ("Error values": an unexpected value is to be treated as NBD_EINVAL). */
int nbd_error_to_errno(uint32_t error);

/* The name of a command in messages, of an option, of a type of option reply, of a chunk;
 * NULL when there is none. */
const char *command_name(unsigned type);
const char *option_name(uint32_t option);
const char *option_reply_name(uint32_t type);
const char *chunk_name(uint16_t type);
