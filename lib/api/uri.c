#include "lib/api/call.h"

#include <stdlib.h>

#include "lib/io/xml_uri.h"
#include "lib/util/cleanup.h"

static void cleanup_uri_p(struct nbdd_uri **u)
{
	uri_free(*u);
}

#define _cleanup_uri_ _cleanup_(cleanup_uri_p)

int api_set_uri_allow_transports(struct nbd_handle *h, uint32_t mask)
{
	h->settings.uri_transports = mask;
	return 0;
}

int api_set_uri_allow_tls(struct nbd_handle *h, int tls)
{
	h->settings.uri_tls = tls;
	return 0;
}

int api_set_uri_allow_local_file(struct nbd_handle *h, bool allow)
{
	h->settings.uri_local_file = allow;
	return 0;
}

int api_set_uri_allow_tls_priority(struct nbd_handle *h, bool allow)
{
	h->settings.uri_tls_priority = allow;
	return 0;
}

int api_supports_uri(struct nbd_handle *h)
{
	return xml_uri_available();
}

int api_is_uri(struct nbd_handle *h, const char *uri)
{
	return uri_looks_like(uri);
}

/* What the handle lets a URI do. */
static int check_permitted(struct nbd_handle *h, const struct nbdd_uri *u)
{
	static const uint32_t transports[] = {
		[NBDD_TRANSPORT_TCP] = LIBNBD_ALLOW_TRANSPORT_TCP,
		[NBDD_TRANSPORT_UNIX] = LIBNBD_ALLOW_TRANSPORT_UNIX,
		[NBDD_TRANSPORT_VSOCK] = LIBNBD_ALLOW_TRANSPORT_VSOCK,
	};
	const struct settings *s = &h->settings;
	const char *scheme = uri_scheme(u->transport, u->tls);

	if (!(s->uri_transports & transports[u->transport]))
		return session_error(h, EPERM, "URI transport %s is not permitted", scheme);
	if ((s->uri_tls == LIBNBD_TLS_DISABLE && u->tls) ||
	    (s->uri_tls == LIBNBD_TLS_REQUIRE && !u->tls))
		return session_error(h, EPERM, "URI TLS setting %s is not permitted", scheme);
	if (!s->uri_local_file && u->tls_certificates)
		return session_error(h, EPERM, "local file access (tls-certificates) is not "
				     "allowed, call nbd_set_uri_allow_local_file to enable "
				     "this");
	if (!s->uri_local_file && u->tls_psk_file)
		return session_error(h, EPERM, "local file access (tls-psk-file) is not allowed, "
				     "call nbd_set_uri_allow_local_file to enable this");
	if (!s->uri_tls_priority && u->tls_priority)
		return session_error(h, EPERM, "setting the TLS priority is not allowed, call "
				     "nbd_set_uri_allow_tls_priority to enable this");
	return 0;
}

static int set_if(struct nbd_handle *h, char **field, const char *value)
{
	return value ? call_set_string(h, field, value) : 0;
}

/* Put what the URI says into the handle's settings. */
static int apply(struct nbd_handle *h, const struct nbdd_uri *u)
{
	struct settings *s = &h->settings;

	if (strlen(u->export_name) > NAME_MAX_BYTES)
		return session_error(h, ENAMETOOLONG, "export name too long for NBD protocol");
	if (set_if(h, &s->export_name, u->export_name) < 0 ||
	    set_if(h, &s->tls_username, u->username) < 0 ||
	    set_if(h, &s->tls_certificates, u->tls_certificates) < 0 ||
	    set_if(h, &s->tls_psk_file, u->tls_psk_file) < 0 ||
	    set_if(h, &s->tls_hostname, u->tls_hostname) < 0 ||
	    set_if(h, &s->tls_priority, u->tls_priority) < 0)
		return -1;
	if (u->tls)
		s->tls = LIBNBD_TLS_REQUIRE;
	if (!u->verify_peer)
		s->verify_peer = false;
	return 0;
}

int api_aio_connect_uri(struct nbd_handle *h, const char *uri)
{
	_cleanup_uri_ struct nbdd_uri *u = NULL;
	char message[URI_MESSAGE_MAX];
	int r = uri_parse(uri, &u, message);

	if (r < 0)
		return session_error(h, -r, "%s", message);
	if (check_permitted(h, u) < 0 || apply(h, u) < 0)
		return -1;
	switch (u->transport) {
	case NBDD_TRANSPORT_TCP:
		return api_aio_connect_tcp(h, u->host, u->port);
	case NBDD_TRANSPORT_UNIX:
		return api_aio_connect_unix(h, u->socket_path);
	default:
		return api_aio_connect_vsock(h, u->vsock_cid, u->vsock_port);
	}
}

int api_connect_uri(struct nbd_handle *h, const char *uri)
{
	return api_aio_connect_uri(h, uri) < 0 ? -1 : session_wait_connected(h);
}

char *api_get_uri(struct nbd_handle *h)
{
	const struct settings *s = &h->settings;
	struct nbdd_uri u;
	char *text;

	if (!h->target) {
		session_error(h, EINVAL, "cannot construct a URI for this connection type");
		return NULL;
	}
	u = *h->target;
	u.tls = s->tls == LIBNBD_TLS_REQUIRE;
	u.export_name = s->export_name;
	u.username = s->tls_username;
	u.tls_certificates = s->tls_certificates;
	u.tls_psk_file = s->tls_psk_file;
	u.tls_hostname = s->tls_hostname;
	u.tls_priority = s->tls_priority;
	text = uri_format(&u);
	if (!text)
		session_error(h, ENOMEM, "no memory for a URI");
	return text;
}

struct nbdd_uri *api_uri_parse(const char *uri)
{
	struct nbdd_uri *u;
	char message[URI_MESSAGE_MAX];
	int r = uri_parse(uri, &u, message);

	if (r == 0)
		return u;
	error_set("nbdd_uri_parse", -r, "%s", message);
	return NULL;
}

void api_uri_free(struct nbdd_uri *u)
{
	uri_free(u);
}
