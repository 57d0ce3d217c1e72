#include <errno.h>

#include "lib/wire/message.h"
#include "lib/wire/option.h"
#include "tests/unit/unit.h"

static const struct request example = {
	.flags = 0x0102, .type = NBD_CMD_TRIM, .cookie = 0x1112131415161718,
	.offset = 0x2122232425262728, .length = 0x31323334,
};

TEST(request_has_28_bytes_in_network_order)
{
	static const uint8_t want[REQUEST_SIZE] = {
		0x25, 0x60, 0x95, 0x13, 1, 2, 0, 4,
		0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
		0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x31, 0x32, 0x33, 0x34,
	};
	uint8_t have[REQUEST_SIZE + 1] = { [REQUEST_SIZE] = 0xaa };

	request_pack(have, &example);
	CHECK(memcmp(have, want, sizeof(want)) == 0);
	CHECK_INT(have[REQUEST_SIZE], 0xaa);
}

TEST(extended_request_has_32_bytes_and_a_long_length)
{
	static const uint8_t want[EXTENDED_REQUEST_SIZE] = {
		0x21, 0xe4, 0x1c, 0x71, 1, 2, 0, 4,
		0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
		0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0, 0, 0, 9, 0x31, 0x32, 0x33,
		0x34,
	};
	struct request r = example;
	uint8_t have[EXTENDED_REQUEST_SIZE];

	r.length |= UINT64_C(9) << 32;
	request_pack_extended(have, &r);
	CHECK(memcmp(have, want, sizeof(want)) == 0);
}

TEST(header_size_follows_from_the_magic)
{
	CHECK_INT(reply_header_size(NBD_SIMPLE_REPLY_MAGIC), 16);
	CHECK_INT(reply_header_size(NBD_STRUCTURED_REPLY_MAGIC), 20);
	CHECK_INT(reply_header_size(NBD_EXTENDED_REPLY_MAGIC), 32);
	CHECK_INT(reply_header_size(NBD_REQUEST_MAGIC), 0);
	CHECK_INT(reply_header_size(0), 0);
}

TEST(simple_reply_is_a_last_message_without_payload)
{
	static const uint8_t p[SIMPLE_REPLY_SIZE] = {
		0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8,
	};
	struct reply r;

	reply_unpack(p, be32_get(p), &r);
	CHECK_INT(r.error, NBD_ENOSPC);
	CHECK_INT(r.cookie, 0x0102030405060708);
	CHECK_INT(r.flags, NBD_REPLY_FLAG_DONE);
	CHECK_INT(r.length, 0);
}

TEST(chunk_header_is_taken_apart)
{
	static const uint8_t p[CHUNK_SIZE] = {
		0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0, 1,
	};
	struct reply r;

	reply_unpack(p, be32_get(p), &r);
	CHECK_INT(r.error, 0);
	CHECK_INT(r.type, NBD_REPLY_TYPE_ERROR_OFFSET);
	CHECK_INT(r.cookie, 0x0102030405060708);
	CHECK_INT(r.length, 0xffff0001);
}

TEST(extended_chunk_header_is_taken_apart)
{
	static const uint8_t p[EXTENDED_CHUNK_SIZE] = {
		0x6e, 0x8a, 0x27, 0x8c, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8,
		0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4,
	};
	struct reply r;

	reply_unpack(p, be32_get(p), &r);
	CHECK_INT(r.flags, 0);
	CHECK_INT(r.type, NBD_REPLY_TYPE_BLOCK_STATUS_EXT);
	CHECK_INT(r.offset, 0x100000002);
	CHECK_INT(r.length, 0x300000004);
}

TEST(error_chunk_is_taken_apart)
{
	static const uint8_t p[] = { 0, 0, 0, 5, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 2, 0 };
	struct error_chunk e;

	CHECK_INT(error_chunk_unpack(p, sizeof(p), NBD_REPLY_TYPE_ERROR_OFFSET, &e), 0);
	CHECK_INT(e.error, NBD_EIO);
	CHECK_INT(e.message_length, 3);
	CHECK(memcmp(e.message, "abc", 3) == 0);
	CHECK_INT(e.offset, 512);
	/* More than the message may follow. */
	CHECK_INT(error_chunk_unpack(p, sizeof(p), NBD_REPLY_TYPE_ERROR, &e), 0);
	CHECK_INT(e.offset, 0);
}

TEST(error_chunk_that_is_cut_off_is_refused)
{
	static const uint8_t p[] = { 0, 0, 0, 5, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 2, 0 };
	struct error_chunk e;

	for (size_t len = 0; len < sizeof(p); len++)
		CHECK_INT(error_chunk_unpack(p, len, NBD_REPLY_TYPE_ERROR_OFFSET, &e), -EPROTO);
	for (size_t len = 0; len < 9; len++)
		CHECK_INT(error_chunk_unpack(p, len, NBD_REPLY_TYPE_ERROR, &e), -EPROTO);
}

TEST(errors_of_the_protocol_have_an_errno_and_others_are_einval)
{
	static const struct { uint32_t error; int want; } rows[] = {
		{ 0, 0 }, { 1, EPERM }, { 5, EIO }, { 12, ENOMEM }, { 22, EINVAL },
		{ 28, ENOSPC }, { 75, EOVERFLOW }, { 95, ENOTSUP }, { 108, ESHUTDOWN },
		{ 2, EINVAL }, { 999, EINVAL }, { UINT32_MAX, EINVAL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CHECK_INT(nbd_error_to_errno(rows[i].error), rows[i].want);
}

TEST(names_exist_for_what_the_protocol_knows_and_for_nothing_else)
{
	CHECK_STR(command_name(NBD_CMD_WRITE_ZEROES), "write-zeroes");
	CHECK(!command_name(8));
	CHECK_STR(option_name(NBD_OPT_GO), "NBD_OPT_GO");
	CHECK(!option_name(4) && !option_name(12) && !option_name(UINT32_MAX));
	CHECK_STR(option_reply_name(NBD_REP_ERR_POLICY), "NBD_REP_ERR_POLICY");
	CHECK(!option_reply_name(0) && !option_reply_name(5));
	CHECK(!option_reply_name(NBD_REP_FLAG_ERROR) && !option_reply_name(UINT32_MAX));
	CHECK_STR(chunk_name(NBD_REPLY_TYPE_ERROR), "NBD_REPLY_TYPE_ERROR");
	CHECK(!chunk_name(77));
}

TEST(option_header_and_data_are_packed)
{
	static const uint8_t want[] = {
		'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 7, 0, 0, 0, 9,
		0, 0, 0, 3, 'a', 'b', 'c', 0, 3,
	};
	struct buffer b = BUFFER_NULL(100);

	CHECK_INT(option_pack(&b, NBD_OPT_GO, 9), 0);
	CHECK_INT(pack_string(&b, "abc"), 0);
	CHECK_INT(pack_u16(&b, 3), 0);
	CHECK_INT(b.len, sizeof(want));
	CHECK(memcmp(b.data, want, sizeof(want)) == 0);
	buffer_clear(&b);
}

TEST(option_reply_of_another_magic_is_refused)
{
	uint8_t p[OPTION_REPLY_SIZE] = {};
	struct option_reply r;

	CHECK_INT(option_reply_unpack(p, &r), -EPROTO);
	be64_put(p, NBD_OPTION_REPLY_MAGIC);
	be32_put(p + 8, NBD_OPT_LIST);
	be32_put(p + 12, NBD_REP_ERR_UNSUP);
	be32_put(p + 16, 77);
	CHECK_INT(option_reply_unpack(p, &r), 0);
	CHECK_INT(r.option, NBD_OPT_LIST);
	CHECK_INT(r.type, NBD_REP_ERR_UNSUP);
	CHECK_INT(r.length, 77);
}

TEST(reader_never_passes_the_end)
{
	static const uint8_t p[] = { 1, 2, 3, 4, 5, 6, 7 };
	struct reader r = { p, sizeof(p) };
	const uint8_t *bytes;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;

	CHECK_INT(read_u64(&r, &u64), -EPROTO);
	CHECK_INT(read_u32(&r, &u32), 0);
	CHECK_INT(u32, 0x01020304);
	CHECK_INT(read_u32(&r, &u32), -EPROTO);
	CHECK_INT(read_u16(&r, &u16), 0);
	CHECK_INT(u16, 0x0506);
	CHECK_INT(read_u16(&r, &u16), -EPROTO);
	CHECK_INT(read_bytes(&r, 2, &bytes), -EPROTO);
	CHECK_INT(read_bytes(&r, SIZE_MAX, &bytes), -EPROTO);
	CHECK_INT(read_bytes(&r, 1, &bytes), 0);
	CHECK(bytes == p + 6 && r.left == 0);
	CHECK_INT(read_bytes(&r, 0, &bytes), 0);
}
