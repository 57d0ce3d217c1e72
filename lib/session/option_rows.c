/* The options, a row each ("Option types", "Option reply types"). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/option_row.h"
#include "lib/util/escape.h"

static int too_small(struct nbd_handle *h, const char *what, size_t len)
{
	return session_error(h, EPROTO, "handshake: %s reply length too small: %zu bytes", what,
			     len);
}

static int refusal_ignored(struct nbd_handle *h, uint32_t type, const char *text)
{
	const char *name = option_reply_name(type);

	debug_log(h, "server refused %s: %s%s", option_name(h->option.row->option),
		  name ? name : "unknown error", text);
	return 0;
}

/* ---- NBD_OPT_STARTTLS ---- */

static bool starttls_wanted(struct nbd_handle *h)
{
	return h->settings.tls != LIBNBD_TLS_DISABLE && !h->export.tls;
}

static int starttls_refused(struct nbd_handle *h, uint32_t type, const char *text)
{
	if (h->settings.tls == LIBNBD_TLS_ALLOW)
		return refusal_ignored(h, type, text);
	return session_error(h, ENOTSUP, "handshake: server refused TLS, but handle TLS "
			     "setting is 'require' (%d)%s", LIBNBD_TLS_REQUIRE, text);
}

/* ---- NBD_OPT_EXTENDED_HEADERS, NBD_OPT_STRUCTURED_REPLY ---- */

static bool extended_wanted(struct nbd_handle *h)
{
	return h->settings.extended_headers && h->settings.structured_replies &&
	       !h->export.extended_headers;
}

static int extended_ack(struct nbd_handle *h)
{
	h->export.extended_headers = h->export.structured_replies = true;
	debug_log(h, "negotiated extended headers on this connection");
	return 0;
}

static bool structured_wanted(struct nbd_handle *h)
{
	return h->settings.structured_replies && !h->export.structured_replies;
}

static int structured_ack(struct nbd_handle *h)
{
	h->export.structured_replies = true;
	debug_log(h, "negotiated structured replies on this connection");
	return 0;
}

/* ---- NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT ---- */

static int pack_queries(struct buffer *out, char *const *queries, size_t n)
{
	int r = pack_u32(out, (uint32_t)n);

	for (size_t i = 0; i < n && r == 0; i++)
		r = pack_string(out, queries[i]);
	return r;
}

static int meta_data(struct nbd_handle *h, struct buffer *out)
{
	char **queries = h->option.queries;
	size_t n = 0;
	int r = pack_string(out, h->settings.export_name);

	if (r < 0)
		return r;
	if (!queries)
		return pack_queries(out, h->meta.wanted, h->meta.n_wanted);
	while (queries[n])
		n++;
	return pack_queries(out, queries, n);
}

static bool set_meta_wanted(struct nbd_handle *h)
{
	return h->settings.meta_contexts && h->export.structured_replies &&
	       h->meta.n_wanted > 0;
}

static int set_meta_data(struct nbd_handle *h, struct buffer *out)
{
	/* "Issuing this command replaces all previously-set metadata contexts (including
	 * when this command fails)". */
	meta_select_nothing(&h->meta);
	return meta_data(h, out);
}

/* One context: into *RET_NAME, terminated, to be freed. */
static int read_context(struct nbd_handle *h, struct reader *r, uint32_t *ret_id,
			char **ret_name)
{
	if (read_u32(r, ret_id) < 0)
		return too_small(h, "NBD_REP_META_CONTEXT", r->left);
	if (r->left > NAME_MAX_BYTES)
		return session_error(h, EPROTO, "handshake: server sent a meta context name of %zu "
				     "bytes, more than %u", r->left, NAME_MAX_BYTES);
	*ret_name = strndup((const char *)r->p, r->left);
	return *ret_name ? 0 : session_error(h, ENOMEM, "no memory for a meta context");
}

static int take_context(struct nbd_handle *h, struct reader *r, bool select)
{
	nbd_context_callback *cb = &h->option.context;
	char *name;
	uint32_t id;
	int e = 0;

	if (read_context(h, r, &id, &name) < 0)
		return -1;
	if (++h->option.items > CONTEXTS_MAX)
		e = session_error(h, EPROTO, "handshake: server sent more than %u meta contexts",
				  CONTEXTS_MAX);
	else if (select && meta_select(&h->meta, id, name, strlen(name)) < 0)
		e = session_error(h, EPROTO, "handshake: server gave meta context id %" PRIu32
				  " to two contexts", id);
	else if (cb->callback)
		CALLBACK_CALL(*cb, name);
	free(name);
	return e;
}

static int list_meta_take(struct nbd_handle *h, struct reader *r)
{
	return take_context(h, r, false);
}

static int set_meta_take(struct nbd_handle *h, struct reader *r)
{
	return take_context(h, r, true);
}

static int set_meta_ack(struct nbd_handle *h)
{
	h->meta.valid = true;
	return 0;
}

static int set_meta_refused(struct nbd_handle *h, uint32_t type, const char *text)
{
	meta_select_nothing(&h->meta);
	return refusal_ignored(h, type, text);
}

/* ---- NBD_OPT_LIST ---- */

static int list_take(struct nbd_handle *h, struct reader *r)
{
	nbd_list_callback *cb = &h->option.list;
	char *name, *description;
	const uint8_t *p;
	uint32_t len;

	if (read_u32(r, &len) < 0 || read_bytes(r, len, &p) < 0)
		return session_error(h, EPROTO, "handshake: NBD_REP_SERVER with an export name "
				     "longer than the reply");
	if (len > NAME_MAX_BYTES || r->left > NAME_MAX_BYTES)
		return session_error(h, EPROTO, "handshake: server sent an export name of %" PRIu32
				     " bytes and a description of %zu, at most %u are "
				     "allowed", len, r->left, NAME_MAX_BYTES);
	if (++h->option.items > EXPORTS_MAX)
		return session_error(h, EPROTO, "handshake: server lists more than %u exports",
				     EXPORTS_MAX);
	name = strndup((const char *)p, len);
	description = strndup((const char *)r->p, r->left);
	if (name && description && cb->callback)
		CALLBACK_CALL(*cb, name, description);
	free(name);
	free(description);
	return 0;
}

/* ---- NBD_OPT_INFO, NBD_OPT_GO ---- */

static int info_data(struct nbd_handle *h, struct buffer *out)
{
	uint16_t infos[3], n = 0;
	int r;

	session_reset_export(h);
	if (h->settings.full_info) {
		infos[n++] = NBD_INFO_NAME;
		infos[n++] = NBD_INFO_DESCRIPTION;
	}
	if (h->settings.block_size)
		infos[n++] = NBD_INFO_BLOCK_SIZE;
	r = pack_string(out, h->settings.export_name);
	if (r == 0)
		r = pack_u16(out, n);
	for (uint16_t i = 0; i < n && r == 0; i++)
		r = pack_u16(out, infos[i]);
	return r;
}

static int take_export(struct nbd_handle *h, struct reader *r)
{
	uint16_t flags;
	uint64_t size;

	if (r->left != 10 || read_u64(r, &size) < 0 || read_u16(r, &flags) < 0)
		return session_error(h, EPROTO, "handshake: incorrect NBD_INFO_EXPORT option reply "
				     "length: %zu, expected 12", r->left + 2);
	return handshake_set_export(h, size, flags);
}

static int take_block_size(struct nbd_handle *h, struct reader *r)
{
	struct export *e = &h->export;
	uint32_t min, preferred, max;

	if (r->left != 12 || read_u32(r, &min) < 0 || read_u32(r, &preferred) < 0 ||
	    read_u32(r, &max) < 0)
		return session_error(h, EPROTO, "handshake: incorrect NBD_INFO_BLOCK_SIZE option "
				     "reply length: %zu, expected 14", r->left + 2);
	/* "Block size constraints".  Nonsense is left aside: it only advises. */
	if (!min || min & (min - 1) || min > 65536 || preferred & (preferred - 1) ||
	    preferred < min || max < min || (max != UINT32_MAX && max % min)) {
		debug_log(h, "server sent inconsistent block sizes %" PRIu32 ", %" PRIu32
			  ", %" PRIu32 ", ignored", min, preferred, max);
		return 0;
	}
	e->block_sizes = true;
	e->block_minimum = min;
	e->block_preferred = preferred;
	e->block_maximum = max;
	return 0;
}

static int take_text(struct nbd_handle *h, struct reader *r, char **field)
{
	if (r->left > NAME_MAX_BYTES)
		return session_error(h, EPROTO, "handshake: server sent a text of %zu bytes about "
				     "the export, more than %u", r->left, NAME_MAX_BYTES);
	free(*field);
	*field = strndup((const char *)r->p, r->left);
	return *field ? 0 : session_error(h, ENOMEM, "no memory for a text");
}

static int info_take(struct nbd_handle *h, struct reader *r)
{
	uint16_t info;

	if (read_u16(r, &info) < 0)
		return too_small(h, "NBD_REP_INFO", r->left);
	switch (info) {
	case NBD_INFO_EXPORT:
		return take_export(h, r);
	case NBD_INFO_NAME:
		return take_text(h, r, &h->export.canonical_name);
	case NBD_INFO_DESCRIPTION:
		return take_text(h, r, &h->export.description);
	case NBD_INFO_BLOCK_SIZE:
		return take_block_size(h, r);
	default:
		return 0;	/* "The client MUST ignore information types it does not know" */
	}
}

static int info_ack(struct nbd_handle *h)
{
	if (!h->export.known)
		return session_error(h, EINVAL, "handshake: server acknowledged %s without "
				     "NBD_INFO_EXPORT", option_name(h->option.row->option));
	return 0;
}

static int go_ack(struct nbd_handle *h)
{
	return info_ack(h) < 0 ? -1 : handshake_finished(h);
}

static int go_refused(struct nbd_handle *h, uint32_t type, const char *text)
{
	char name[200];
	const char *reply = option_reply_name(type);

	switch (type) {
	case NBD_REP_ERR_POLICY:
	case NBD_REP_ERR_PLATFORM:
		return session_error(h, 0, "handshake: server policy prevents NBD_OPT_GO%s",
				     text);
	case NBD_REP_ERR_INVALID:
	case NBD_REP_ERR_TOO_BIG:
		return session_error(h, EINVAL, "handshake: server rejected NBD_OPT_GO as "
				     "invalid%s", text);
	case NBD_REP_ERR_TLS_REQD:
		return session_error(h, ENOTSUP, "handshake: server requires TLS encryption "
				     "first%s", text);
	case NBD_REP_ERR_UNKNOWN:
		return session_error(h, ENOENT, "handshake: server has no export named '%s'%s",
				     escape_text(name, sizeof(name), h->settings.export_name,
						 strlen(h->settings.export_name)), text);
	case NBD_REP_ERR_SHUTDOWN:
		return session_error(h, ESHUTDOWN, "handshake: server is shutting down%s", text);
	case NBD_REP_ERR_BLOCK_SIZE_REQD:
		return session_error(h, EINVAL, "handshake: server requires specific block "
				     "sizes%s", text);
	}
	return session_error(h, 0, "handshake: unknown reply from NBD_OPT_GO: 0x%" PRIx32 "%s%s%s",
			     type, reply ? " " : "", reply ? reply : "", text);
}

/* ---- NBD_OPT_EXPORT_NAME, NBD_OPT_ABORT ---- */

static int export_name_data(struct nbd_handle *h, struct buffer *out)
{
	session_reset_export(h);
	return buffer_append(out, h->settings.export_name, strlen(h->settings.export_name));
}

static int abort_ack(struct nbd_handle *h)
{
	session_closed(h);
	return 0;
}

const struct option_row option_rows[] = {
	{ .option = NBD_OPT_EXPORT_NAME, .request_name = "export name",
	  .data = export_name_data },
	{ .option = NBD_OPT_ABORT, .request_name = "abort", .ack = abort_ack },
	{ .option = NBD_OPT_LIST, .request_name = "list", .item = NBD_REP_SERVER,
	  .take = list_take, .lenient = true },
	{ .option = NBD_OPT_STARTTLS, .request_name = "starttls", .wanted = starttls_wanted,
	  .ack = starttls_begin, .refused = starttls_refused },
	{ .option = NBD_OPT_INFO, .request_name = "opt_info", .item = NBD_REP_INFO,
	  .data = info_data, .take = info_take, .ack = info_ack },
	{ .option = NBD_OPT_GO, .request_name = "opt_go", .item = NBD_REP_INFO,
	  .data = info_data, .take = info_take, .ack = go_ack, .refused = go_refused },
	{ .option = NBD_OPT_STRUCTURED_REPLY, .request_name = "structured reply",
	  .wanted = structured_wanted, .ack = structured_ack, .refused = refusal_ignored },
	{ .option = NBD_OPT_EXTENDED_HEADERS, .request_name = "extended headers",
	  .wanted = extended_wanted, .ack = extended_ack, .refused = refusal_ignored },
	{ .option = NBD_OPT_LIST_META_CONTEXT, .request_name = "list meta context",
	  .item = NBD_REP_META_CONTEXT, .data = meta_data, .take = list_meta_take,
	  .lenient = true },
	{ .option = NBD_OPT_SET_META_CONTEXT, .request_name = "set meta context",
	  .item = NBD_REP_META_CONTEXT, .wanted = set_meta_wanted, .data = set_meta_data,
	  .take = set_meta_take, .ack = set_meta_ack, .refused = set_meta_refused,
	  .lenient = true },
};
