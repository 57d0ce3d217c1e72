#include "lib/api/call.h"

#include <inttypes.h>

/* Transmission flags are known: 0, or -1 with the error set. */
static int need_flags(struct nbd_handle *h)
{
	if (h->export.known)
		return 0;
	return session_error(h, EINVAL, "server has not returned export flags, you need to "
			     "connect to the server first");
}

static int has_flag(struct nbd_handle *h, uint16_t flag)
{
	return need_flags(h) < 0 ? -1 : (h->export.flags & flag) != 0;
}

#define FLAG_CALL(name, flag) \
	int api_##name(struct nbd_handle *h) \
	{ \
		return has_flag(h, flag); \
	}

FLAG_CALL(is_read_only, NBD_FLAG_READ_ONLY)
FLAG_CALL(can_flush, NBD_FLAG_SEND_FLUSH)
FLAG_CALL(can_fua, NBD_FLAG_SEND_FUA)
FLAG_CALL(is_rotational, NBD_FLAG_ROTATIONAL)
FLAG_CALL(can_trim, NBD_FLAG_SEND_TRIM)
FLAG_CALL(can_zero, NBD_FLAG_SEND_WRITE_ZEROES)
FLAG_CALL(can_fast_zero, NBD_FLAG_SEND_FAST_ZERO)
FLAG_CALL(can_df, NBD_FLAG_SEND_DF)
FLAG_CALL(can_multi_conn, NBD_FLAG_CAN_MULTI_CONN)
FLAG_CALL(can_cache, NBD_FLAG_SEND_CACHE)
FLAG_CALL(can_block_status_payload, NBD_FLAG_BLOCK_STATUS_PAYLOAD)

int64_t api_get_transmission_flags(struct nbd_handle *h)
{
	return h->export.known ? h->export.flags : need_flags(h);
}

int api_can_meta_context(struct nbd_handle *h, const char *metacontext)
{
	/* Contexts may be set by hand before the export's flags are known. */
	if (!h->export.known && !h->meta.valid)
		return need_flags(h);
	return meta_by_name(&h->meta, metacontext) != NULL;
}

const char *api_get_protocol(struct nbd_handle *h)
{
	if (!h->export.protocol)
		session_error(h, EINVAL, "the protocol is not known before the handshake");
	return h->export.protocol;
}

int api_get_structured_replies_negotiated(struct nbd_handle *h)
{
	return h->export.structured_replies;
}

int api_get_extended_headers_negotiated(struct nbd_handle *h)
{
	return h->export.extended_headers;
}

int64_t api_get_size(struct nbd_handle *h)
{
	if (!h->export.known)
		return session_error(h, EINVAL, "server has not returned export size, you need "
				     "to connect to the server first");
	if (h->export.size > INT64_MAX)
		return session_error(h, EOVERFLOW, "server claims size %" PRIu64 " which does "
				     "not fit in signed result", h->export.size);
	return (int64_t)h->export.size;
}

int64_t api_get_block_size(struct nbd_handle *h, int size_type)
{
	const struct export *e = &h->export;

	if (need_flags(h) < 0)
		return -1;
	switch (size_type) {
	case LIBNBD_SIZE_MINIMUM:
		return e->block_minimum;
	case LIBNBD_SIZE_PREFERRED:
		return e->block_preferred;
	case LIBNBD_SIZE_MAXIMUM:
		return e->block_maximum;
	default:
		return (int64_t)payload_limit(h);
	}
}

static char *text(struct nbd_handle *h, const char *value, const char *what)
{
	if (need_flags(h) < 0)
		return NULL;
	if (value)
		return call_copy_string(h, value);
	session_error(h, ENOTSUP, "server did not advertise a %s", what);
	return NULL;
}

char *api_get_canonical_export_name(struct nbd_handle *h)
{
	return text(h, h->export.canonical_name, "canonical name");
}

char *api_get_export_description(struct nbd_handle *h)
{
	return text(h, h->export.description, "description");
}
