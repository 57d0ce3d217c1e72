/* The process of a resolver: what it is asked, and what it answers. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "daemon/resolver.h"

/* One server as the child reports it. */
struct resolved_server {
	char host[TARGET_HOST_MAX + 1];
	uint32_t is_unix;			/* then host is the path */
	uint32_t is_vsock, cid, port;		/* then host says so, too */
	uint32_t n_addresses;
	union {
		sa_family_t family;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} addresses[TARGET_ADDRESSES_MAX];
};

/* What a URI says of TLS, by place in struct target_tls. */
enum { URI_CERTIFICATES, URI_PSK_FILE, URI_USERNAME, URI_HOSTNAME, URI_PRIORITY, N_URI_TLS };
#define URI_TLS_MAX 1024	/* bytes of each */

/* The child's whole answer. */
struct resolved {
	int32_t error;
	char message[RESOLVER_MESSAGE_MAX];
	char uri_tls[N_URI_TLS][URI_TLS_MAX + 1];
	char export_name[TARGET_EXPORT_MAX + 1];
	uint32_t n_servers;
	struct resolved_server servers[CONF_ADDRESSES_MAX + 1];
};
_Static_assert(sizeof(struct resolved) <= CHILD_MESSAGE_MAX, "must fit one message");

/* See struct child_spec; ARG is a struct child_given, whose job resolver_job_write made. */
int resolver_prepare(void *arg);
void resolver_main(int sock, int kept, void *arg);

/* What KEYS say of servers, to be passed.  0 or -errno. */
_must_check_ int resolver_job_write(const struct device_keys *keys, struct job *ret);
