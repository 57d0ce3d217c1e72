#include "lib/api/call.h"

/* The strictness that programs of libnbd 1.14 and before know; until strictness is set, no
 * more is shown to them, though all of it is in force. */
#define STRICT_MASK_1_14 0x1fu

int api_set_export_name(struct nbd_handle *h, const char *export_name)
{
	if (strlen(export_name) > NAME_MAX_BYTES)
		return session_error(h, ENAMETOOLONG, "export name too long for NBD protocol");
	if (strcmp(export_name, h->settings.export_name) != 0) {
		/* What is known belongs to the other name. */
		session_reset_export(h);
		meta_select_nothing(&h->meta);
	}
	return call_set_string(h, &h->settings.export_name, export_name);
}

char *api_get_export_name(struct nbd_handle *h)
{
	return call_copy_string(h, h->settings.export_name);
}

#define BOOL_SETTING(name, field) \
	int api_set_##name(struct nbd_handle *h, bool request) \
	{ \
		h->settings.field = request; \
		return 0; \
	} \
	int api_get_##name(struct nbd_handle *h) \
	{ \
		return h->settings.field; \
	}

BOOL_SETTING(request_block_size, block_size)
BOOL_SETTING(full_info, full_info)
BOOL_SETTING(request_structured_replies, structured_replies)
BOOL_SETTING(request_extended_headers, extended_headers)
BOOL_SETTING(request_meta_context, meta_contexts)
BOOL_SETTING(pread_initialize, pread_initialize)
BOOL_SETTING(opt_mode, opt_mode)
BOOL_SETTING(tls_verify_peer, verify_peer)

int api_set_handshake_flags(struct nbd_handle *h, uint32_t flags)
{
	h->settings.handshake_flags = flags;
	return 0;
}

uint32_t api_get_handshake_flags(struct nbd_handle *h)
{
	/* After the hello: what was agreed. */
	return h->export.protocol ? h->export.handshake_flags : h->settings.handshake_flags;
}

int api_set_strict_mode(struct nbd_handle *h, uint32_t flags)
{
	h->settings.strict = flags;
	h->settings.strict_known = true;
	return 0;
}

uint32_t api_get_strict_mode(struct nbd_handle *h)
{
	return h->settings.strict_known ? h->settings.strict : STRICT_MASK_1_14;
}

int api_set_socket_activation_name(struct nbd_handle *h, const char *socket_name)
{
	size_t len = strlen(socket_name);

	/* sd_listen_fds_with_names(3): names are joined by colons. */
	if (len > 32)
		return session_error(h, ENAMETOOLONG, "socket activation name should be <= 32 "
				     "characters, not %zu", len);
	for (const char *p = socket_name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == ':')
			return session_error(h, EINVAL, "socket activation name must not "
					     "contain control characters or ':'");
	return call_set_string(h, &h->settings.activation_name, socket_name);
}

char *api_get_socket_activation_name(struct nbd_handle *h)
{
	const char *name = h->settings.activation_name;

	return call_copy_string(h, name ? name : "");
}
