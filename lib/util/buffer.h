/* A growing byte buffer that is born with its maximum. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/util/macro.h"

struct buffer {
	uint8_t *data;
	size_t len;		/* bytes in use */
	size_t capacity;
	size_t max;		/* named limit; len never passes it */
};

#define BUFFER_NULL(limit) ((struct buffer){ .max = (limit) })

/* Room for MORE bytes after len: 0, -ENOBUFS past the maximum, -ENOMEM. */
_must_check_ int buffer_reserve(struct buffer *b, size_t more);
/* Append LEN bytes; errors as buffer_reserve. */
_must_check_ int buffer_append(struct buffer *b, const void *data, size_t len);
/* Drop the first LEN bytes. */
void buffer_consume(struct buffer *b, size_t len);
/* Free the memory; the maximum stays. */
void buffer_clear(struct buffer *b);
