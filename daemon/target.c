#include "daemon/target.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

bool server_is_local(const struct server *s)
{
	sa_family_t family = s->addresses[0].addr.ss_family;

	return family == AF_UNIX || family == AF_VSOCK;
}

static bool is_name(const char *host)
{
	struct in6_addr any;

	return inet_pton(AF_INET, host, &any) != 1 &&
	       inet_pton(AF_INET6, host, &any) != 1;
}

bool target_has_names(const struct target *t)
{
	for (size_t i = 0; i < t->n_servers; i++)
		if (!server_is_local(&t->servers[i]) && is_name(t->servers[i].host))
			return true;
	return false;
}

bool server_same(const struct server *a, const struct server *b)
{
	if (a->n_addresses != b->n_addresses || strcmp(a->label, b->label) != 0)
		return false;
	for (size_t i = 0; i < a->n_addresses; i++)
		if (a->addresses[i].len != b->addresses[i].len ||
		    memcmp(&a->addresses[i].addr, &b->addresses[i].addr,
			   a->addresses[i].len) != 0)
			return false;
	return true;
}

void target_deinit(struct target *t)
{
	for (size_t i = 0; i < t->n_servers; i++)
		free(t->servers[i].addresses);
	free(t->export_name);
	free(t->uri_tls.certificates);
	free(t->uri_tls.psk_file);
	free(t->uri_tls.username);
	free(t->uri_tls.hostname);
	free(t->uri_tls.priority);
	*t = (struct target){};
}
