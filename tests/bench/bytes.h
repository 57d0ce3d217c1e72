/* Numbers in the protocol's byte order.  put*() return the end of what they wrote. */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static inline uint8_t *put16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	return mempcpy(p, &v, sizeof(v));
}

static inline uint8_t *put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	return mempcpy(p, &v, sizeof(v));
}

static inline uint8_t *put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	return mempcpy(p, &v, sizeof(v));
}
