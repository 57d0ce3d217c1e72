/* A resolver has met a name service: whoever has taken it over must not choose what the
 * server's certificate is compared with, or which socket is connected to.  So the URI is cut up
 * once more, in the daemon, by no more than RFC 3986's delimiters; its resolver has had it
 * checked by a whole parser, which is not in locked memory.  Where the two do not say the same,
 * nothing is connected. */
#include "daemon/resolver_check.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/util/units.h"

#define VSOCK_CID_HOST	2
#define VSOCK_PORT	10809	/* NBD's, as of TCP */
#define WORD_MAX	16	/* of a number or a truth */

/* A piece of the URI as it stands there. */
struct part {
	const char *at;
	size_t len;
};

struct parts {
	struct part user, host, port, path, query;
};

/* Take from the front of REST what stands before any of ENDS, or all. */
static struct part cut(struct part *rest, const char *ends)
{
	struct part part = { rest->at, 0 };

	while (part.len < rest->len && !strchr(ends, rest->at[part.len]))
		part.len++;
	rest->at += part.len;
	rest->len -= part.len;
	return part;
}

static bool skip(struct part *rest, char c)
{
	if (!rest->len || *rest->at != c)
		return false;
	rest->at++;
	rest->len--;
	return true;
}

static void split_authority(struct part all, struct parts *ret)
{
	struct part rest = all, user = cut(&rest, "@");

	if (skip(&rest, '@'))
		ret->user = user;
	else
		rest = all;
	if (skip(&rest, '[')) {
		ret->host = cut(&rest, "]");
		skip(&rest, ']');
	} else {
		ret->host = cut(&rest, ":");
	}
	if (skip(&rest, ':'))
		ret->port = rest;
}

/* SCHEME://[USER@]HOST[:PORT][/PATH][?QUERY][#FRAGMENT]; nothing of what is none. */
static void split(const char *uri, struct parts *ret)
{
	const char *begin = uri ? strstr(uri, "://") : NULL;
	struct part rest = { begin ? begin + 3 : "", begin ? strlen(begin + 3) : 0 };

	*ret = (struct parts){};
	split_authority(cut(&rest, "/?#"), ret);
	skip(&rest, '/');
	ret->path = cut(&rest, "?#");
	if (skip(&rest, '?'))
		ret->query = cut(&rest, "#");
}

static unsigned hex(char c)
{
	return isdigit((unsigned char)c) ? (unsigned)(c - '0')
					 : (unsigned)(tolower((unsigned char)c) - 'a' + 10);
}

/* Take a byte, percent-decoded; 0 at the end. */
static char next(struct part *p)
{
	char c;

	if (p->len < 3 || *p->at != '%' || !isxdigit((unsigned char)p->at[1]) ||
	    !isxdigit((unsigned char)p->at[2])) {
		c = p->len ? *p->at : '\0';
		skip(p, c);
		return c;
	}
	c = (char)(hex(p->at[1]) << 4 | hex(p->at[2]));
	p->at += 3;
	p->len -= 3;
	return c;
}

static bool says(struct part p, const char *text)
{
	char c;

	while ((c = next(&p)) && c == *text)
		text++;
	return c == *text;
}

/* Another parameter of the query, if there is one. */
static bool next_parameter(struct part *query, struct part *ret_name, struct part *ret_value)
{
	if (!query->len)
		return false;
	*ret_value = cut(query, "&;");
	*ret_name = cut(ret_value, "=");
	skip(ret_value, '=');
	if (query->len)
		skip(query, *query->at);
	return true;
}

/* Of one that is given twice the last counts. */
static struct part parameter(struct part query, const char *name)
{
	struct part found = {}, key, value;

	while (next_parameter(&query, &key, &value))
		if (says(key, name))
			found = value;
	return found;
}

/* "": nothing, or too long for a word. */
static void word_of(struct part p, char ret[static WORD_MAX])
{
	size_t n = 0;
	char c;

	while ((c = next(&p)) && n < WORD_MAX - 1)
		ret[n++] = c;
	ret[c ? 0 : n] = '\0';
}

static uint32_t number_of(struct part p, uint32_t otherwise)
{
	char word[WORD_MAX];
	uint32_t number;

	word_of(p, word);
	return parse_u32(word, &number) < 0 ? otherwise : number;
}

bool resolver_requires_tls(const struct device_keys *keys)
{
	return keys->tls == CONF_TLS_REQUIRE ||
	       (keys->uri && strncasecmp(keys->uri, "nbds", strlen("nbds")) == 0);
}

bool resolver_skips_verify(const char *uri)
{
	struct part key, value;
	bool verify = true;
	struct parts p;

	split(uri, &p);
	while (next_parameter(&p.query, &key, &value)) {
		char word[WORD_MAX];
		bool said;

		word_of(value, word);
		if (says(key, "tls-verify-peer") && parse_bool(word, &said) == 0)
			verify = said;
	}
	return !verify;
}

static int _printf_(2, 3) differs(char *message, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, RESOLVER_MESSAGE_MAX, format, ap);
	va_end(ap);
	return -EPROTO;
}

static int check_tls(const struct resolved *r, const struct parts *p, char *message)
{
	static const char *const names[N_URI_TLS] = {
		[URI_CERTIFICATES] = "tls-certificates", [URI_PSK_FILE] = "tls-psk-file",
		[URI_USERNAME] = "tls-username", [URI_HOSTNAME] = "tls-hostname",
		[URI_PRIORITY] = "tls-priority",
	};

	for (size_t i = 0; i < N_URI_TLS; i++) {
		struct part part = i == URI_USERNAME ? p->user : parameter(p->query, names[i]);

		if (strnlen(r->uri_tls[i], sizeof(r->uri_tls[i])) > URI_TLS_MAX ||
		    !says(part, r->uri_tls[i]))
			return differs(message, "the resolver's answer has another %s than "
				       "the URI, and is not used; if the URI is right, give "
				       "that as a key", names[i]);
	}
	return 0;
}

static bool is_uris_server(const struct resolved_server *s, const char *uri,
			   const struct parts *p)
{
	const char *end = strstr(uri, "://");
	size_t len = end ? (size_t)(end - uri) : 0;
	const char *plus = memchr(uri, '+', len);
	char vsock[sizeof("vsock:4294967295:4294967295")];

	if (!plus)
		return !s->is_unix && !s->is_vsock &&
		       (p->host.len ? says(p->host, s->host) : !strcmp(s->host, "localhost"));
	if (strncmp(plus, "+unix:", 6) == 0)
		return s->is_unix && !s->is_vsock &&
		       says(parameter(p->query, "socket"), s->host);
	snprintf(vsock, sizeof(vsock), "vsock:%u:%u", s->cid, s->port);
	return s->is_vsock && !s->is_unix && s->cid == number_of(p->host, VSOCK_CID_HOST) &&
	       s->port == number_of(p->port, VSOCK_PORT) && strcmp(s->host, vsock) == 0;
}

static bool is_keys_server(const struct resolved_server *s, const char *address)
{
	struct conf_address a;

	return conf_parse_address(address, &a) == 0 && !s->is_vsock &&
	       a.is_socket == (s->is_unix != 0) && strcmp(a.host, s->host) == 0;
}

static int check_servers(const struct resolved *r, const struct device_keys *keys,
			 const struct parts *p, char *message)
{
	size_t of_uri = keys->uri != NULL;

	if (r->n_servers != of_uri + keys->n_addresses || r->n_servers == 0 ||
	    r->n_servers > CONF_ADDRESSES_MAX + 1)
		return differs(message, "the resolver's answer has %u servers, expected %zu; it "
			       "is not used", r->n_servers, of_uri + keys->n_addresses);
	for (size_t i = 0; i < r->n_servers; i++) {
		const struct resolved_server *s = &r->servers[i];
		const char *address = i < of_uri ? keys->uri : keys->addresses[i - of_uri];

		if (strnlen(s->host, sizeof(s->host)) > TARGET_HOST_MAX ||
		    !(i < of_uri ? is_uris_server(s, address, p) : is_keys_server(s, address)))
			return differs(message, "the resolver's answer has another server than "
				       "%.300s, and is not used", address);
	}
	return 0;
}

int resolver_check(const struct resolved *r, const struct device_keys *keys,
		   char message[static RESOLVER_MESSAGE_MAX])
{
	struct parts p;
	int e;

	split(keys->uri, &p);
	if (strnlen(r->export_name, sizeof(r->export_name)) > TARGET_EXPORT_MAX ||
	    !(keys->export_name ? strcmp(keys->export_name, r->export_name) == 0
				: says(p.path, r->export_name)))
		return differs(message, "the resolver's answer has another export than the "
			       "%s, and is not used%s", keys->export_name ? "key" : "URI",
			       keys->export_name ? "" : "; if the URI is right, give the export "
			       "as a key");
	e = check_tls(r, &p, message);
	return e < 0 ? e : check_servers(r, keys, &p, message);
}
