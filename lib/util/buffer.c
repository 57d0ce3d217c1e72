#include "lib/util/buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_FIRST 256

int buffer_reserve(struct buffer *b, size_t more)
{
	size_t need, capacity = b->capacity ? b->capacity : BUFFER_FIRST;
	uint8_t *data;

	if (__builtin_add_overflow(b->len, more, &need) || need > b->max)
		return -ENOBUFS;
	if (need <= b->capacity)
		return 0;
	while (capacity < need)
		capacity *= 2;
	capacity = MIN(capacity, b->max);
	data = realloc(b->data, capacity);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->capacity = capacity;
	return 0;
}

int buffer_append(struct buffer *b, const void *data, size_t len)
{
	int r = buffer_reserve(b, len);

	if (r < 0)
		return r;
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	return 0;
}

void buffer_consume(struct buffer *b, size_t len)
{
	b->len -= len;
	if (b->len)
		memmove(b->data, b->data + len, b->len);
}

void buffer_clear(struct buffer *b)
{
	free(b->data);
	*b = BUFFER_NULL(b->max);
}
