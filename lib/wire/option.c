#include "lib/wire/option.h"

#include <errno.h>

int pack_u16(struct buffer *out, uint16_t v)
{
	uint8_t b[2];

	be16_put(b, v);
	return buffer_append(out, b, sizeof(b));
}

int pack_u32(struct buffer *out, uint32_t v)
{
	uint8_t b[4];

	be32_put(b, v);
	return buffer_append(out, b, sizeof(b));
}

int pack_string(struct buffer *out, const char *text)
{
	size_t len = strlen(text);
	int r = pack_u32(out, (uint32_t)len);

	return r < 0 ? r : buffer_append(out, text, len);
}

int option_pack(struct buffer *out, uint32_t option, uint32_t length)
{
	uint8_t b[OPTION_SIZE];

	be64_put(b, NBD_OPTION_MAGIC);
	be32_put(b + 8, option);
	be32_put(b + 12, length);
	return buffer_append(out, b, sizeof(b));
}

int option_reply_unpack(const uint8_t *p, struct option_reply *ret)
{
	if (be64_get(p) != NBD_OPTION_REPLY_MAGIC)
		return -EPROTO;
	ret->option = be32_get(p + 8);
	ret->type = be32_get(p + 12);
	ret->length = be32_get(p + 16);
	return 0;
}

int read_bytes(struct reader *r, size_t len, const uint8_t **ret)
{
	if (r->left < len)
		return -EPROTO;
	*ret = r->p;
	r->p += len;
	r->left -= len;
	return 0;
}

int read_u16(struct reader *r, uint16_t *ret)
{
	const uint8_t *p;
	int e = read_bytes(r, 2, &p);

	if (e == 0)
		*ret = be16_get(p);
	return e;
}

int read_u32(struct reader *r, uint32_t *ret)
{
	const uint8_t *p;
	int e = read_bytes(r, 4, &p);

	if (e == 0)
		*ret = be32_get(p);
	return e;
}

int read_u64(struct reader *r, uint64_t *ret)
{
	const uint8_t *p;
	int e = read_bytes(r, 8, &p);

	if (e == 0)
		*ret = be64_get(p);
	return e;
}
