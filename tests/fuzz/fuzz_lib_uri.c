/* Any text as an NBD URI: it is refused with a printable reason, or understood; and what the
 * library writes for what it has understood means the same. */
#include <nbdd.h>
#include <string.h>

#include "lib/io/uri.h"
#include "lib/util/escape.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/promise.h"

static int same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void check_equal(const struct nbdd_uri *a, const struct nbdd_uri *b)
{
	PROMISE(a->transport == b->transport && a->tls == b->tls);
	PROMISE(same(a->host, b->host) && same(a->port, b->port));
	PROMISE(same(a->socket_path, b->socket_path) && same(a->export_name, b->export_name));
	PROMISE(same(a->username, b->username) && same(a->tls_psk_file, b->tls_psk_file));
	PROMISE(same(a->tls_certificates, b->tls_certificates));
	PROMISE(same(a->tls_hostname, b->tls_hostname));
	PROMISE(same(a->tls_priority, b->tls_priority));
	PROMISE(a->vsock_cid == b->vsock_cid && a->vsock_port == b->vsock_port);
}

static void check_understood(const struct nbdd_uri *u)
{
	char message[URI_MESSAGE_MAX];
	struct nbdd_uri *again;
	char *text;

	PROMISE(u->export_name);
	PROMISE((u->transport == NBDD_TRANSPORT_TCP) == (u->host && u->port));
	PROMISE(u->transport != NBDD_TRANSPORT_UNIX || (u->socket_path && *u->socket_path));
	text = uri_format(u);
	if (!text)
		return;			/* too long when encoded */
	PROMISE(text_is_printable(text, strlen(text)));
	PROMISE(uri_looks_like(text) && uri_parse(text, &again, message) == 0);
	check_equal(u, again);
	uri_free(again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), message[URI_MESSAGE_MAX];
	struct nbdd_uri *u;

	PROMISE(text);
	if (uri_parse(text, &u, message) == 0) {
		check_understood(u);
		uri_free(u);
	} else {
		PROMISE(*message && text_is_printable(message, strlen(message)));
	}
	free(text);
	return 0;
}
