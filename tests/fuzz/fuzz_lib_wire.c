/* Any bytes as each structure of the protocol: nothing is read past the end, what comes out
 * keeps its promises, and what is packed unpacks to the same. */
#include <errno.h>
#include <string.h>

#include "lib/wire/message.h"
#include "lib/wire/option.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/promise.h"

static void check_names(const uint8_t *p, size_t size)
{
	uint32_t v = size >= 4 ? be32_get(p) : (uint32_t)size;
	const char *(*const names[])(uint32_t) = { option_name, option_reply_name };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *name = names[i](v);

		PROMISE(!name || strncmp(name, "NBD_", 4) == 0);
	}
	PROMISE(!chunk_name((uint16_t)v) || strncmp(chunk_name((uint16_t)v), "NBD_", 4) == 0);
	PROMISE(!command_name(v) || v <= NBD_CMD_BLOCK_STATUS);
	PROMISE((nbd_error_to_errno(v) == 0) == (v == 0));
	PROMISE(nbd_error_to_errno(v) >= 0);
}

static void check_reply(const uint8_t *p, size_t size)
{
	uint32_t magic = size >= 4 ? be32_get(p) : 0;
	size_t head = reply_header_size(magic);
	struct reply r;

	if (!head || size < head)
		return;
	reply_unpack(p, magic, &r);
	PROMISE(r.size == head && r.magic == magic && r.cookie == be64_get(p + 8));
	if (magic == NBD_SIMPLE_REPLY_MAGIC)
		PROMISE(!r.length && r.flags == NBD_REPLY_FLAG_DONE);
	else
		PROMISE(!r.error);
	if (magic == NBD_STRUCTURED_REPLY_MAGIC)
		PROMISE(r.length <= UINT32_MAX);
}

static void check_error_chunk(const uint8_t *p, size_t size, uint16_t type)
{
	struct error_chunk e;
	int r = error_chunk_unpack(p, size, type, &e);
	size_t tail = type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;

	PROMISE(r == 0 || r == -EPROTO);
	if (r < 0)
		return;
	PROMISE(e.error == be32_get(p) && e.message == (const char *)p + 6);
	PROMISE(e.message_length <= size - 6 - tail);
	PROMISE(tail || !e.offset);
}

static void check_option_reply(const uint8_t *p, size_t size)
{
	struct option_reply o;

	if (size < OPTION_REPLY_SIZE)
		return;
	if (option_reply_unpack(p, &o) < 0)
		PROMISE(be64_get(p) != NBD_OPTION_REPLY_MAGIC);
	else
		PROMISE(o.option == be32_get(p + 8) && o.length == be32_get(p + 16));
}

/* Take numbers and bytes as the input's own bytes say, to its end. */
static void check_reader(const uint8_t *p, size_t size)
{
	struct reader r = { p, size };
	const uint8_t *bytes;
	uint16_t v16, kind;
	uint32_t v32;
	uint64_t v64;

	while (read_u16(&r, &kind) == 0) {
		size_t left = r.left, want = kind >> 2;
		int e = 0;

		switch (kind & 3) {
		case 0:
			e = read_u16(&r, &v16);
			want = 2;
			break;
		case 1:
			e = read_u32(&r, &v32);
			want = 4;
			break;
		case 2:
			e = read_u64(&r, &v64);
			want = 8;
			break;
		case 3:
			e = read_bytes(&r, want, &bytes);
			PROMISE(e < 0 || bytes + want == r.p);
			break;
		}
		PROMISE(e == (left < want ? -EPROTO : 0));
		PROMISE(r.left == left - (e == 0 ? want : 0) && r.p + r.left == p + size);
	}
	PROMISE(r.left < 2);
}

static void check_request(const uint8_t *p, size_t size)
{
	struct request r;
	uint8_t compact[REQUEST_SIZE], extended[EXTENDED_REQUEST_SIZE];

	if (size < 28)
		return;
	r = (struct request) { be16_get(p), be16_get(p + 2), be64_get(p + 4),
			       be64_get(p + 12), be64_get(p + 20) };
	request_pack(compact, &r);
	request_pack_extended(extended, &r);
	PROMISE(be32_get(compact) == NBD_REQUEST_MAGIC);
	PROMISE(be32_get(extended) == NBD_EXTENDED_REQUEST_MAGIC);
	/* Both are the same but for the magic and the length. */
	PROMISE(memcmp(compact + 4, extended + 4, 20) == 0);
	PROMISE(memcmp(compact + 4, p, 20) == 0);
	PROMISE(be32_get(compact + 24) == (uint32_t)r.length);
	PROMISE(be64_get(extended + 24) == r.length);
}

static void check_packing(const uint8_t *p, size_t size)
{
	struct buffer out = BUFFER_NULL(1000);
	char *text = strndup((const char *)p, size);
	struct reader r;
	const uint8_t *bytes;
	uint32_t len;

	PROMISE(text);
	if (option_pack(&out, (uint32_t)size, 7) == 0 && pack_string(&out, text) == 0 &&
	    pack_u16(&out, 0x1234) == 0) {
		r = (struct reader) { out.data + OPTION_SIZE, out.len - OPTION_SIZE };
		PROMISE(be64_get(out.data) == NBD_OPTION_MAGIC);
		PROMISE(be32_get(out.data + 8) == (uint32_t)size);
		PROMISE(read_u32(&r, &len) == 0 && len == strlen(text));
		PROMISE(read_bytes(&r, len, &bytes) == 0 && memcmp(bytes, text, len) == 0);
		PROMISE(r.left == 2);
	} else {
		PROMISE(strlen(text) + OPTION_SIZE + 6 > out.max);
	}
	PROMISE(out.len <= out.max);
	buffer_clear(&out);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_names(data, size);
	check_reply(data, size);
	check_error_chunk(data, size, NBD_REPLY_TYPE_ERROR);
	check_error_chunk(data, size, NBD_REPLY_TYPE_ERROR_OFFSET);
	check_option_reply(data, size);
	check_reader(data, size);
	check_request(data, size);
	check_packing(data, size);
	return 0;
}
