#include "daemon/resolver.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

#include <libnbd.h>
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"

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
	uint32_t tls, no_verify;
	char uri_tls[N_URI_TLS][URI_TLS_MAX + 1];
	char export_name[TARGET_EXPORT_MAX + 1];
	uint32_t n_servers;
	struct resolved_server servers[CONF_ADDRESSES_MAX + 1];
};
_Static_assert(sizeof(struct resolved) <= CHILD_MESSAGE_MAX, "must fit one message");

struct resolver {
	struct child *child;
	const struct device_keys *keys;
	resolver_done_fn done;
	void *userdata;
};

/* ---- in the child ------------------------------------------------------------------ */

static int _printf_(3, 4) fail(struct resolved *r, int error, const char *format, ...)
{
	va_list ap;

	r->error = error;
	va_start(ap, format);
	vsnprintf(r->message, sizeof(r->message), format, ap);
	va_end(ap);
	return error;
}

static int add_unix(struct resolved *r, const char *path)
{
	struct resolved_server *s = &r->servers[r->n_servers];

	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return fail(r, -ENAMETOOLONG, "socket path of %zu bytes, at most %zu fit: %s",
			    strlen(path), sizeof(((struct sockaddr_un *)0)->sun_path) - 1,
			    path);
	snprintf(s->host, sizeof(s->host), "%s", path);
	s->is_unix = 1;
	r->n_servers++;
	return 0;
}

static int add_vsock(struct resolved *r, uint32_t cid, uint32_t port)
{
	struct resolved_server *s = &r->servers[r->n_servers++];

	snprintf(s->host, sizeof(s->host), "vsock:%u:%u", cid, port);
	s->is_vsock = 1;
	s->cid = cid;
	s->port = port;
	return 0;
}

static int add_tcp(struct resolved *r, const char *host, const char *port)
{
	struct resolved_server *s = &r->servers[r->n_servers];
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP };
	_cleanup_addrinfo_ struct addrinfo *list = NULL;
	int e;

	if (!*host)
		host = "localhost";
	if (strlen(host) > TARGET_HOST_MAX)
		return fail(r, -ENAMETOOLONG, "host name of %zu bytes, at most %d are possible",
			    strlen(host), TARGET_HOST_MAX);
	e = getaddrinfo(host, port, &hints, &list);
	if (e)
		return fail(r, -EHOSTUNREACH, "cannot resolve host '%s' port '%s': %s", host,
			    port, e == EAI_SYSTEM ? strerror(errno) : gai_strerror(e));
	snprintf(s->host, sizeof(s->host), "%s", host);
	for (struct addrinfo *a = list; a && s->n_addresses < TARGET_ADDRESSES_MAX;
	     a = a->ai_next)
		if (a->ai_addrlen <= sizeof(s->addresses[0]))
			memcpy(&s->addresses[s->n_addresses++], a->ai_addr, a->ai_addrlen);
	r->n_servers++;
	return 0;
}

static int add_address(struct resolved *r, const char *text, const char *default_port)
{
	struct conf_address a;
	char port[16];

	if (conf_parse_address(text, &a) < 0)
		return fail(r, -EINVAL, "'%s' is no HOST, HOST:PORT, [IPV6]:PORT or /SOCKET",
			    text);
	if (a.is_socket)
		return add_unix(r, a.host);
	snprintf(port, sizeof(port), "%u", a.port);
	return add_tcp(r, a.host, a.port ? port : default_port);
}

static void cleanup_uri_p(struct nbdd_uri **u)
{
	nbdd_uri_free(*u);
}

static int add_uri_tls(struct resolved *r, const struct nbdd_uri *u)
{
	const char *texts[N_URI_TLS] = {
		[URI_CERTIFICATES] = u->tls_certificates, [URI_PSK_FILE] = u->tls_psk_file,
		[URI_USERNAME] = u->username, [URI_HOSTNAME] = u->tls_hostname,
		[URI_PRIORITY] = u->tls_priority,
	};

	r->tls = u->tls != 0;
	r->no_verify = !u->verify_peer;
	for (size_t i = 0; i < N_URI_TLS; i++)
		if (texts[i] && strlen(texts[i]) > URI_TLS_MAX)
			return fail(r, -ENAMETOOLONG, "a value of %zu bytes in the URI, at most "
				    "%d are possible", strlen(texts[i]), URI_TLS_MAX);
		else if (texts[i])
			snprintf(r->uri_tls[i], sizeof(r->uri_tls[i]), "%s", texts[i]);
	return 0;
}

static int add_uri(struct resolved *r, const char *text, const char *default_port)
{
	_cleanup_(cleanup_uri_p) struct nbdd_uri *u = nbdd_uri_parse(text);

	if (!u)
		return fail(r, -EINVAL, "%s", nbd_get_error());
	if (add_uri_tls(r, u) < 0)
		return r->error;
	if (u->export_name && strlen(u->export_name) > TARGET_EXPORT_MAX)
		return fail(r, -ENAMETOOLONG, "export name of %zu bytes, at most %d are possible",
			    strlen(u->export_name), TARGET_EXPORT_MAX);
	if (u->export_name)
		snprintf(r->export_name, sizeof(r->export_name), "%s", u->export_name);
	switch (u->transport) {
	case NBDD_TRANSPORT_UNIX:
		return add_unix(r, u->socket_path);
	case NBDD_TRANSPORT_TCP:
		return add_tcp(r, u->host ? u->host : "",
			       u->port && *u->port ? u->port : default_port);
	case NBDD_TRANSPORT_VSOCK:
		return add_vsock(r, u->vsock_cid, u->vsock_port);
	}
	return fail(r, -ENOTSUP, "a transport that is not known");
}

static void resolver_main(int sock, int kept, void *arg)
{
	struct resolver *resolver = arg;
	const struct device_keys *k = resolver->keys;
	_cleanup_free_ struct resolved *r = calloc(1, sizeof(*r));
	char port[16];
	int e = 0;

	if (!r)
		return;
	snprintf(port, sizeof(port), "%u", k->port);
	if (k->uri)
		e = add_uri(r, k->uri, port);
	for (size_t i = 0; i < k->n_addresses && e >= 0; i++)
		e = add_address(r, k->addresses[i], port);
	if (e >= 0 && k->export_name)
		snprintf(r->export_name, sizeof(r->export_name), "%s", k->export_name);
	if (k->tls == CONF_TLS_REQUIRE)
		r->tls = 1;
	fd_send(sock, r, sizeof(*r), NULL, 0);
}

/* ---- in the daemon ----------------------------------------------------------------- */

static void label(struct server *s, const char *host)
{
	const struct nbdd_address *a = &s->addresses[0];
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->addr;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->addr;
	uint16_t port = a->addr.ss_family == AF_INET ? v4->sin_port : v6->sin6_port;

	if (server_is_local(s))
		snprintf(s->label, sizeof(s->label), "%s", host);
	else
		snprintf(s->label, sizeof(s->label),
			 strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, ntohs(port));
}

static int take_unix(struct server *s, const char *path)
{
	struct sockaddr_un *un;

	s->addresses = calloc(1, sizeof(*s->addresses));
	if (!s->addresses)
		return -ENOMEM;
	s->n_addresses = 1;
	s->addresses->len = sizeof(*un);
	un = (struct sockaddr_un *)&s->addresses->addr;
	un->sun_family = AF_UNIX;
	strncpy(un->sun_path, path, sizeof(un->sun_path) - 1);
	return 0;
}

static int take_vsock(struct server *s, const struct resolved_server *from)
{
	s->addresses = calloc(1, sizeof(*s->addresses));
	if (!s->addresses)
		return -ENOMEM;
	s->n_addresses = 1;
	s->addresses->len = sizeof(struct sockaddr_vm);
	*(struct sockaddr_vm *)&s->addresses->addr = (struct sockaddr_vm) {
		.svm_family = AF_VSOCK, .svm_cid = from->cid, .svm_port = from->port };
	return 0;
}

static int take_tcp(struct server *s, const struct resolved_server *from)
{
	if (from->n_addresses == 0 || from->n_addresses > TARGET_ADDRESSES_MAX)
		return -EPROTO;
	s->addresses = calloc(from->n_addresses, sizeof(*s->addresses));
	if (!s->addresses)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_addresses; i++) {
		struct nbdd_address *a = &s->addresses[s->n_addresses++];
		sa_family_t family = from->addresses[i].family;

		if (family != AF_INET && family != AF_INET6)
			return -EPROTO;
		a->len = family == AF_INET ? sizeof(struct sockaddr_in)
					   : sizeof(struct sockaddr_in6);
		memcpy(&a->addr, &from->addresses[i], a->len);
	}
	return 0;
}

/* Root reads the files of these paths: they must stand in the URI that root wrote. */
static int check_paths(const struct resolved *r, const char *uri, char *message)
{
	for (size_t i = URI_CERTIFICATES; i <= URI_PSK_FILE; i++)
		if (r->uri_tls[i][0] && (!uri || !strstr(uri, r->uri_tls[i]))) {
			snprintf(message, RESOLVER_MESSAGE_MAX, "a path of the URI stands in it "
				 "with escapes; use the key %s instead", i == URI_PSK_FILE
				 ? "tls-psk-file" : "tls-certificates");
			return -EINVAL;
		}
	return 0;
}

static int take_uri_tls(const struct resolved *r, struct target_tls *t)
{
	char **texts[N_URI_TLS] = { &t->certificates, &t->psk_file, &t->username, &t->hostname,
				    &t->priority };

	for (size_t i = 0; i < N_URI_TLS; i++) {
		if (strnlen(r->uri_tls[i], sizeof(r->uri_tls[i])) > URI_TLS_MAX)
			return -EPROTO;
		if (!r->uri_tls[i][0])
			continue;
		*texts[i] = strdup(r->uri_tls[i]);
		if (!*texts[i])
			return -ENOMEM;
	}
	t->no_verify = r->no_verify != 0;
	return 0;
}

/* The child has read a peer's answer (name service): check all that it says. */
static int take_target(const struct resolved *r, struct target *t)
{
	int e = 0;

	if (r->n_servers == 0 || r->n_servers > CONF_ADDRESSES_MAX + 1 ||
	    strnlen(r->export_name, sizeof(r->export_name)) > TARGET_EXPORT_MAX)
		return -EPROTO;
	t->tls = r->tls != 0;
	e = take_uri_tls(r, &t->uri_tls);
	if (e < 0)
		return e;
	t->export_name = strdup(r->export_name);
	if (!t->export_name)
		return -ENOMEM;
	for (size_t i = 0; i < r->n_servers && e >= 0; i++) {
		const struct resolved_server *from = &r->servers[i];
		struct server *s = &t->servers[t->n_servers++];

		if (strnlen(from->host, sizeof(from->host)) > TARGET_HOST_MAX)
			return -EPROTO;
		memcpy(s->host, from->host, sizeof(s->host));
		e = from->is_unix ? take_unix(s, from->host)
		    : from->is_vsock ? take_vsock(s, from) : take_tcp(s, from);
		if (e >= 0)
			label(s, from->host);
	}
	return e;
}

static void resolver_report(struct resolver *r, int error, const char *message,
			    struct target *target)
{
	resolver_done_fn done = r->done;
	void *userdata = r->userdata;

	free(r);
	done(error, message, target, userdata);
}

static void on_answer(const struct child_answer *answer, void *userdata)
{
	const struct resolver *resolver = userdata;
	const struct resolved *r = answer->data;
	char message[RESOLVER_MESSAGE_MAX];
	struct target target = {};
	int e = answer->error;

	fd_close(answer->fd);
	if (e == 0 && answer->len != sizeof(*r))
		e = -EPROTO;
	if (e < 0) {
		const struct device_keys *k = resolver->keys;

		snprintf(message, sizeof(message), "%.200s: resolving its name: %s", k->uri ?
			 k->uri : k->n_addresses ? k->addresses[0] : "the server",
			 e == -ECHILD ? "the resolver died" : strerror(-e));
	} else if (r->error < 0) {
		e = r->error;
		clean_text(message, sizeof(message), r->message,
			    strnlen(r->message, sizeof(r->message)));
	} else {
		e = take_target(r, &target);
		snprintf(message, sizeof(message), "answer of the resolver: %s",
			 strerror(-e));
		if (e >= 0)
			e = check_paths(r, resolver->keys->uri, message);
	}
	if (e < 0)
		target_deinit(&target);
	resolver_report(userdata, e, message, e < 0 ? NULL : &target);
}

int resolver_start(sd_event *event, const char *name, const struct device_keys *keys,
		   const struct sandbox *sandbox, unsigned *alive, resolver_done_fn done,
		   void *userdata, struct resolver **ret)
{
	struct resolver *r;
	char what[16];
	int e;

	if (*alive >= RESOLVERS_MAX)
		return -EAGAIN;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = (struct resolver){ .keys = keys, .done = done, .userdata = userdata };
	snprintf(what, sizeof(what), "resolve %s", name);
	e = child_start(event, &(struct child_spec){
				.what = what, .run = resolver_main, .arg = r,
				.sandbox = sandbox, .role = SANDBOX_RESOLVE,
				.limit_usec = keys->connect_timeout_usec, .alive = alive },
			on_answer, r, &r->child);
	if (e < 0) {
		free(r);
		return e;
	}
	*ret = r;
	return 0;
}

struct resolver *resolver_cancel(struct resolver *r)
{
	if (r) {
		child_cancel(r->child);
		free(r);
	}
	return NULL;
}
