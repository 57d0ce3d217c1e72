/* Where a device's data is: its servers, their addresses, the export. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "conf/conf.h"
#include <nbdd.h>

#define TARGET_ADDRESSES_MAX	16	/* of one server's name */
#define TARGET_HOST_MAX		255	/* bytes of a host name (RFC 1035) */
#define TARGET_EXPORT_MAX	4096	/* bytes; NBD protocol, strings */

/* One server, resolved. */
struct server {
	char host[TARGET_HOST_MAX + 1];		/* or socket path, or vsock:CID:PORT */
	char label[TARGET_HOST_MAX + 10];	/* for messages: HOST:PORT, or HOST */
	size_t n_addresses;
	struct nbdd_address *addresses;
};

/* What the URI says of TLS; NULL: nothing. */
struct target_tls {
	char *certificates, *psk_file, *username, *hostname, *priority;
	bool no_verify;
};

struct target {
	struct server servers[CONF_ADDRESSES_MAX + 1];
	size_t n_servers;
	size_t current;				/* the server that is tried next or used */
	char *export_name;			/* NULL until resolved */
	bool tls;				/* required */
	struct target_tls uri_tls;
	uint64_t preinit_size;			/* bytes; 0: the server negotiates */
};

/* The one that is tried next or used. */
static inline const struct server *target_server(const struct target *t)
{
	return &t->servers[t->current];
}

/* Is it reached through a socket's path or a vsock, which no certificate is made for? */
bool server_is_local(const struct server *s);
/* Is there a name among the hosts, whose addresses may change? */
bool target_has_names(const struct target *t);
/* The same addresses under the same name? */
bool server_same(const struct server *a, const struct server *b);
void target_deinit(struct target *t);
