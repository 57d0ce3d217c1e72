/* What a resolver does in its process: parse URIs and addresses, ask for names. */
#include "daemon/resolver_child.h"

#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <libnbd.h>
#include "daemon/log.h"
#include "lib/util/cleanup.h"

/* What it is asked: the keys that say where a device's servers are. */
struct question {
	uint32_t port;
	uint32_t has_uri, has_export;
	uint32_t n_addresses;
	char uri[CONF_VALUE_MAX + 1];
	char export_name[CONF_VALUE_MAX + 1];
	char addresses[CONF_ADDRESSES_MAX][CONF_VALUE_MAX + 1];
};

static int put(char to[static CONF_VALUE_MAX + 1], const char *text)
{
	size_t len = text ? strlen(text) : 0;

	if (len > CONF_VALUE_MAX)
		return -ENAMETOOLONG;
	if (text)
		memcpy(to, text, len + 1);
	return 0;
}

int resolver_job_write(const struct device_keys *k, struct job *ret)
{
	struct job j = JOB_NULL;
	struct question *q;
	int r = job_new(sizeof(*q), &j);

	if (r < 0)
		return r;
	q = j.data;
	q->port = (uint32_t)k->port;
	q->has_uri = k->uri != NULL;
	q->has_export = k->export_name != NULL;
	q->n_addresses = (uint32_t)k->n_addresses;
	r = put(q->uri, k->uri);
	if (r >= 0)
		r = put(q->export_name, k->export_name);
	for (size_t i = 0; i < k->n_addresses && r >= 0; i++)
		r = put(q->addresses[i], k->addresses[i]);
	if (r < 0)
		job_free(&j);
	else
		*ret = j;
	return r;
}

static bool ends(const char text[static CONF_VALUE_MAX + 1])
{
	return memchr(text, '\0', CONF_VALUE_MAX + 1) != NULL;
}

static bool valid(const struct job *j)
{
	const struct question *q = j->data;

	if (j->size != sizeof(*q) || q->n_addresses > CONF_ADDRESSES_MAX || !ends(q->uri) ||
	    !ends(q->export_name))
		return false;
	for (size_t i = 0; i < q->n_addresses; i++)
		if (!ends(q->addresses[i]))
			return false;
	return true;
}

int resolver_prepare(void *arg)
{
	struct child_given *given = arg;

	int r = job_copy(given->job, &given->mapped);

	if (r >= 0 && !valid(&given->mapped))
		r = -EPROTO;
	if (r < 0) {
		log_error("a resolver cannot use its job: %s", strerror(-r));
		_exit(1);
	}
	given->work = given->mapped.data;
	return given->kept;
}

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

	if (u->tls_priority && u->tls_priority[strspn(u->tls_priority, " \t")] == '@')
		return fail(r, -EINVAL, "tls-priority of the URI: '%s' is a name in a file, which "
			    "no connection can read; give the priority itself", u->tls_priority);
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

/* A full pipe is waited for. */
static void send_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return;
		p += n;
		len -= (size_t)n;
	}
}

void resolver_main(int sock, int kept, void *arg)
{
	const struct question *q = ((struct child_given *)arg)->work;
	_cleanup_free_ struct resolved *r = calloc(1, sizeof(*r));
	char port[16];
	int e = 0;

	if (!r)
		return;
	snprintf(port, sizeof(port), "%u", q->port);
	if (q->has_uri)
		e = add_uri(r, q->uri, port);
	for (size_t i = 0; i < q->n_addresses && e >= 0; i++)
		e = add_address(r, q->addresses[i], port);
	if (e >= 0 && q->has_export)
		snprintf(r->export_name, sizeof(r->export_name), "%s", q->export_name);
	send_all(kept, r, sizeof(*r));
}
