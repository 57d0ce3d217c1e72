#include "lib/wire/message.h"

#include <errno.h>

#include "lib/util/macro.h"

int error_chunk_unpack(const uint8_t *p, size_t len, uint16_t type, struct error_chunk *ret)
{
	size_t tail = type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
	size_t message;

	if (len < 6 + tail)
		return -EPROTO;
	message = be16_get(p + 4);
	if (message > len - 6 - tail)
		return -EPROTO;
	*ret = (struct error_chunk) {
		.error = be32_get(p),
		.message = (const char *)p + 6,
		.message_length = message,
		.offset = tail ? be64_get(p + 6 + message) : 0,
	};
	return 0;
}

int nbd_error_to_errno(uint32_t error)
{
	switch (error) {
	case 0:			return 0;
	case NBD_EPERM:		return EPERM;
	case NBD_EIO:		return EIO;
	case NBD_ENOMEM:	return ENOMEM;
	case NBD_ENOSPC:	return ENOSPC;
	case NBD_EOVERFLOW:	return EOVERFLOW;
	case NBD_ENOTSUP:	return ENOTSUP;
	case NBD_ESHUTDOWN:	return ESHUTDOWN;
	case NBD_EINVAL:
	default:		return EINVAL;
	}
}

const char *command_name(unsigned type)
{
	static const char *const names[] = {
		[NBD_CMD_READ] = "read", [NBD_CMD_WRITE] = "write",
		[NBD_CMD_DISC] = "disconnect", [NBD_CMD_FLUSH] = "flush",
		[NBD_CMD_TRIM] = "trim", [NBD_CMD_CACHE] = "cache",
		[NBD_CMD_WRITE_ZEROES] = "write-zeroes",
		[NBD_CMD_BLOCK_STATUS] = "block-status",
	};

	return type < ARRAY_SIZE(names) ? names[type] : NULL;
}

const char *option_name(uint32_t option)
{
	static const char *const names[] = {
		[NBD_OPT_EXPORT_NAME] = "NBD_OPT_EXPORT_NAME",
		[NBD_OPT_ABORT] = "NBD_OPT_ABORT",
		[NBD_OPT_LIST] = "NBD_OPT_LIST",
		[NBD_OPT_STARTTLS] = "NBD_OPT_STARTTLS",
		[NBD_OPT_INFO] = "NBD_OPT_INFO",
		[NBD_OPT_GO] = "NBD_OPT_GO",
		[NBD_OPT_STRUCTURED_REPLY] = "NBD_OPT_STRUCTURED_REPLY",
		[NBD_OPT_LIST_META_CONTEXT] = "NBD_OPT_LIST_META_CONTEXT",
		[NBD_OPT_SET_META_CONTEXT] = "NBD_OPT_SET_META_CONTEXT",
		[NBD_OPT_EXTENDED_HEADERS] = "NBD_OPT_EXTENDED_HEADERS",
	};

	return option < ARRAY_SIZE(names) ? names[option] : NULL;
}

const char *option_reply_name(uint32_t type)
{
	static const char *const names[] = {
		[NBD_REP_ACK] = "NBD_REP_ACK", [NBD_REP_SERVER] = "NBD_REP_SERVER",
		[NBD_REP_INFO] = "NBD_REP_INFO",
		[NBD_REP_META_CONTEXT] = "NBD_REP_META_CONTEXT",
	};
	static const char *const errors[] = {
		[1] = "NBD_REP_ERR_UNSUP", [2] = "NBD_REP_ERR_POLICY",
		[3] = "NBD_REP_ERR_INVALID", [4] = "NBD_REP_ERR_PLATFORM",
		[5] = "NBD_REP_ERR_TLS_REQD", [6] = "NBD_REP_ERR_UNKNOWN",
		[7] = "NBD_REP_ERR_SHUTDOWN", [8] = "NBD_REP_ERR_BLOCK_SIZE_REQD",
		[9] = "NBD_REP_ERR_TOO_BIG", [10] = "NBD_REP_ERR_EXT_HEADER_REQD",
	};
	uint32_t low = type & ~NBD_REP_FLAG_ERROR;

	if (type & NBD_REP_FLAG_ERROR)
		return low < ARRAY_SIZE(errors) ? errors[low] : NULL;
	return type < ARRAY_SIZE(names) ? names[type] : NULL;
}

const char *chunk_name(uint16_t type)
{
	switch (type) {
	case NBD_REPLY_TYPE_NONE:		return "NBD_REPLY_TYPE_NONE";
	case NBD_REPLY_TYPE_OFFSET_DATA:	return "NBD_REPLY_TYPE_OFFSET_DATA";
	case NBD_REPLY_TYPE_OFFSET_HOLE:	return "NBD_REPLY_TYPE_OFFSET_HOLE";
	case NBD_REPLY_TYPE_BLOCK_STATUS:	return "NBD_REPLY_TYPE_BLOCK_STATUS";
	case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:	return "NBD_REPLY_TYPE_BLOCK_STATUS_EXT";
	case NBD_REPLY_TYPE_ERROR:		return "NBD_REPLY_TYPE_ERROR";
	case NBD_REPLY_TYPE_ERROR_OFFSET:	return "NBD_REPLY_TYPE_ERROR_OFFSET";
	default:				return NULL;
	}
}
