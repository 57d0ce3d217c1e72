#include "lib/io/uri.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/io/xml_uri.h"
#include "lib/util/buffer.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"

#define URI_TEXT_MAX 65536

static const struct scheme {
	const char *name;
	int transport;
	bool tls;
} schemes[] = {
	{ "nbd", NBDD_TRANSPORT_TCP, false },
	{ "nbds", NBDD_TRANSPORT_TCP, true },
	{ "nbd+unix", NBDD_TRANSPORT_UNIX, false },
	{ "nbds+unix", NBDD_TRANSPORT_UNIX, true },
	{ "nbd+vsock", NBDD_TRANSPORT_VSOCK, false },
	{ "nbds+vsock", NBDD_TRANSPORT_VSOCK, true },
	{ "nbd+ssh", -1, false },
	{ "nbds+ssh", -1, true },
};

static const struct parameter {
	const char *name;
	size_t field;
} parameters[] = {
	{ "socket", offsetof(struct nbdd_uri, socket_path) },
	{ "tls-certificates", offsetof(struct nbdd_uri, tls_certificates) },
	{ "tls-psk-file", offsetof(struct nbdd_uri, tls_psk_file) },
	{ "tls-hostname", offsetof(struct nbdd_uri, tls_hostname) },
	{ "tls-priority", offsetof(struct nbdd_uri, tls_priority) },
};

static _printf_(3, 4) int fail(char *message, int r, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, URI_MESSAGE_MAX, format, ap);
	va_end(ap);
	return r;
}

static const struct scheme *find_scheme(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (strcmp(schemes[i].name, name) == 0)
			return &schemes[i];
	return NULL;
}

const char *uri_scheme(int transport, bool tls)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (schemes[i].transport == transport && schemes[i].tls == tls)
			return schemes[i].name;
	return NULL;
}

bool uri_looks_like(const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		size_t n = strlen(schemes[i].name);

		if (strncasecmp(text, schemes[i].name, n) == 0 &&
		    strncmp(text + n, "://", 3) == 0)
			return true;
	}
	return false;
}

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* TEXT of LEN bytes, percent-decoded. */
static char *decode(const char *text, size_t len)
{
	char *out = malloc(len + 1), *p = out;

	for (size_t i = 0; out && i < len; i++)
		if (text[i] == '%' && i + 2 < len && isxdigit((unsigned char)text[i + 1]) &&
		    isxdigit((unsigned char)text[i + 2])) {
			*p++ = (char)(hex(text[i + 1]) << 4 | hex(text[i + 2]));
			i += 2;
		} else {
			*p++ = text[i];
		}
	if (out)
		*p = '\0';
	return out;
}

static int take_parameter(struct nbdd_uri *u, const char *name, const char *value)
{
	if (strcmp(name, "tls-verify-peer") == 0) {
		bool verify;

		if (parse_bool(value, &verify) == 0)
			u->verify_peer = verify;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
		char **field = (char **)((char *)u + parameters[i].field);

		if (strcmp(parameters[i].name, name) != 0)
			continue;
		free(*field);
		*field = strdup(value);
		return *field ? 0 : -ENOMEM;
	}
	return 0;		/* unknown ones are ignored */
}

static int take_query(struct nbdd_uri *u, const char *query)
{
	while (query && *query) {
		size_t len = strcspn(query, "&;"), name_len = strcspn(query, "&;=");
		_cleanup_free_ char *name = decode(query, name_len);
		_cleanup_free_ char *value = NULL;
		int r;

		if (name_len < len)
			value = decode(query + name_len + 1, len - name_len - 1);
		else
			value = strdup("");
		if (!name || !value)
			return -ENOMEM;
		r = take_parameter(u, name, value);
		if (r < 0)
			return r;
		query += len + (query[len] != '\0');
	}
	return 0;
}

static int take_tcp(struct nbdd_uri *u, const struct uri_parts *p, char *message)
{
	const char *server = p->server && *p->server ? p->server : "localhost";
	size_t len = strlen(server);

	/* An IPv6 address stands in brackets. */
	if (server[0] == '[' && server[len - 1] == ']') {
		server++;
		len -= 2;
	}
	if (!len)
		return fail(message, -EINVAL, "the host of the NBD URI is empty brackets");
	u->host = strndup(server, len);
	if (p->port ? asprintf(&u->port, "%d", p->port) < 0
		    : !(u->port = strdup(NBD_PORT)))
		return -ENOMEM;
	return u->host ? 0 : -ENOMEM;
}

static int take_vsock(struct nbdd_uri *u, const struct uri_parts *p, char *message)
{
	char text[64];

	u->vsock_cid = VSOCK_CID_HOST;
	u->vsock_port = p->port ? (uint32_t)p->port : (uint32_t)atoi(NBD_PORT);
	if (p->server && *p->server && parse_u32(p->server, &u->vsock_cid) < 0)
		return fail(message, -EINVAL, "cannot parse vsock CID: %s",
			    escape_text(text, sizeof(text), p->server, strlen(p->server)));
	return 0;
}

static int take_unix(struct nbdd_uri *u, char *message)
{
	if (u->socket_path && *u->socket_path)
		return 0;
	return fail(message, -EINVAL, "cannot parse socket parameter from NBD URI "
		    "(did you mean to use \"%s:///?socket=...\"?)",
		    uri_scheme(NBDD_TRANSPORT_UNIX, u->tls));
}

static int take_parts(struct nbdd_uri *u, const struct uri_parts *p, char *message)
{
	const char *name = p->path && p->path[0] == '/' ? p->path + 1 : p->path;
	int r;

	u->export_name = strdup(name ? name : "");
	u->username = p->user && *p->user ? strdup(p->user) : NULL;
	if (!u->export_name || (p->user && *p->user && !u->username))
		return -ENOMEM;
	r = take_query(u, p->query);
	if (r < 0)
		return r;
	if (u->transport != NBDD_TRANSPORT_UNIX && u->socket_path)
		return fail(message, -EINVAL, "socket parameter is only valid with %s and %s",
			    uri_scheme(NBDD_TRANSPORT_UNIX, false),
			    uri_scheme(NBDD_TRANSPORT_UNIX, true));
	switch (u->transport) {
	case NBDD_TRANSPORT_TCP:
		return take_tcp(u, p, message);
	case NBDD_TRANSPORT_UNIX:
		return take_unix(u, message);
	default:
		return take_vsock(u, p, message);
	}
}

/* The scheme, checked before the rest is. */
static int take_scheme(struct nbdd_uri *u, const char *text, const struct uri_parts *p,
		       char *message)
{
	const struct scheme *s;
	char name[64];

	if (!p->scheme)
		return fail(message, -EINVAL,
			    "NBD URI does not have a scheme: valid NBD URIs should start "
			    "with a scheme like nbd://, nbds:// or nbd+unix://%s",
			    text[0] == '/' ? ": to open a local socket use "
			    "\"nbd+unix://?socket=PATH\"" : "");
	s = find_scheme(p->scheme);
	if (!s)
		return fail(message, -EINVAL, "unknown NBD URI scheme: %s",
			    escape_text(name, sizeof(name), p->scheme, strlen(p->scheme)));
	if (strncmp(text + strlen(p->scheme), "://", 3) != 0)
		return fail(message, -EINVAL, "URI must begin with '%s://'", s->name);
	if (s->transport < 0)
		return fail(message, -ENOTSUP, "%s: connecting by SSH is not supported",
			    s->name);
	u->transport = s->transport;
	u->tls = s->tls;
	return 0;
}

int uri_parse(const char *text, struct nbdd_uri **ret, char message[static URI_MESSAGE_MAX])
{
	struct uri_parts parts = {};
	struct nbdd_uri *u;
	char shown[200];
	int r;

	fail(message, 0, "%s", "out of memory");
	r = xml_uri_parse(text, &parts);
	if (r == -EINVAL)
		return fail(message, r, "unable to parse URI: %s",
			    escape_text(shown, sizeof(shown), text, strlen(text)));
	if (r == -ENOTSUP)
		return fail(message, r, "URIs are not supported: libxml2 cannot be loaded");
	if (r < 0)
		return r;
	u = calloc(1, sizeof(*u));
	if (!u) {
		uri_parts_clear(&parts);
		return -ENOMEM;
	}
	u->verify_peer = true;
	r = take_scheme(u, text, &parts, message);
	if (r == 0)
		r = take_parts(u, &parts, message);
	uri_parts_clear(&parts);
	if (r < 0) {
		uri_free(u);
		return r;
	}
	*ret = u;
	return 0;
}

void uri_free(struct nbdd_uri *u)
{
	if (!u)
		return;
	free(u->host);
	free(u->port);
	free(u->export_name);
	free(u->username);
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++)
		free(*(char **)((char *)u + parameters[i].field));
	free(u);
}

/* Append TEXT percent-encoded: what RFC 3986 calls unreserved, and KEEP, stay. */
static int append_encoded(struct buffer *b, const char *text, const char *keep)
{
	int r = 0;

	for (; *text && r == 0; text++) {
		char out[4] = { *text };

		if (!isalnum((unsigned char)*text) && !strchr("-._~", *text) &&
		    !strchr(keep, *text))
			snprintf(out, sizeof(out), "%%%02X", (unsigned char)*text);
		r = buffer_append(b, out, strlen(out));
	}
	return r;
}

static int append(struct buffer *b, const char *text)
{
	return buffer_append(b, text, strlen(text));
}

static int append_authority(struct buffer *b, const struct nbdd_uri *u)
{
	char number[32];
	int r = append(b, uri_scheme(u->transport, u->tls));

	if (r == 0)
		r = append(b, "://");
	if (r == 0 && u->username) {
		r = append_encoded(b, u->username, "");
		if (r == 0)
			r = append(b, "@");
	}
	if (r == 0 && u->transport == NBDD_TRANSPORT_TCP) {
		bool ipv6 = strchr(u->host, ':');

		if (ipv6)
			r = append(b, "[");
		if (r == 0)
			r = append_encoded(b, u->host, ":");
		if (r == 0)
			r = append(b, ipv6 ? "]:" : ":");
		if (r == 0)
			r = append(b, u->port);
	}
	if (r == 0 && u->transport == NBDD_TRANSPORT_VSOCK) {
		snprintf(number, sizeof(number), "%u:%u", u->vsock_cid, u->vsock_port);
		r = append(b, number);
	}
	return r;
}

char *uri_format(const struct nbdd_uri *u)
{
	struct buffer b = BUFFER_NULL(URI_TEXT_MAX);
	const char *separator = "?";
	int r = append_authority(&b, u);

	if (r == 0)
		r = append(&b, "/");
	if (r == 0)
		r = append_encoded(&b, u->export_name, "/");
	for (size_t i = 0; i < ARRAY_SIZE(parameters) && r == 0; i++) {
		const char *value = *(char *const *)((const char *)u + parameters[i].field);

		if (!value)
			continue;
		r = append(&b, separator);
		if (r == 0)
			r = append(&b, parameters[i].name);
		if (r == 0)
			r = append(&b, "=");
		if (r == 0)
			r = append_encoded(&b, value, "/");
		separator = "&";
	}
	if (r == 0)
		r = buffer_append(&b, "", 1);
	if (r < 0) {
		buffer_clear(&b);
		return NULL;
	}
	return (char *)b.data;
}
