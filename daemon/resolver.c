#include "daemon/resolver.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

#include "daemon/resolver_check.h"
#include "daemon/resolver_child.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"

struct resolver {
	struct child *child;
	struct job job;
	const struct device_keys *keys;
	resolver_done_fn done;
	void *userdata;
};

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

static int take_uri_tls(const struct resolved *r, const char *uri, struct target_tls *t)
{
	char **texts[N_URI_TLS] = { &t->certificates, &t->psk_file, &t->username, &t->hostname,
				    &t->priority };

	for (size_t i = 0; i < N_URI_TLS; i++) {
		if (!r->uri_tls[i][0])
			continue;
		*texts[i] = strdup(r->uri_tls[i]);
		if (!*texts[i])
			return -ENOMEM;
	}
	t->no_verify = resolver_skips_verify(uri);
	return 0;
}

/* An answer that resolver_check has let through: its addresses are left to be checked. */
static int take_target(const struct resolved *r, const struct device_keys *keys,
		       struct target *t)
{
	int e = take_uri_tls(r, keys->uri, &t->uri_tls);

	if (e < 0)
		return e;
	t->tls = resolver_requires_tls(keys);
	t->export_name = strdup(r->export_name);
	if (!t->export_name)
		return -ENOMEM;
	for (size_t i = 0; i < r->n_servers && e >= 0; i++) {
		const struct resolved_server *from = &r->servers[i];
		struct server *s = &t->servers[t->n_servers++];

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

	job_free(&r->job);
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
		e = resolver_check(r, resolver->keys, message);
		if (e >= 0) {
			e = take_target(r, resolver->keys, &target);
			snprintf(message, sizeof(message), "answer of the resolver: %s",
				 strerror(-e));
		}
	}
	if (e < 0)
		target_deinit(&target);
	resolver_report(userdata, e, message, e < 0 ? NULL : &target);
}

int resolver_start(sd_event *event, const char *name, const struct device_keys *keys,
		   struct spawner *spawner, unsigned *alive, resolver_done_fn done,
		   void *userdata, struct resolver **ret)
{
	struct job job = JOB_NULL;
	struct resolver *r;
	char what[16];
	int e;

	if (*alive >= RESOLVERS_MAX)
		return -EAGAIN;
	e = resolver_job_write(keys, &job);
	if (e < 0)
		return e;
	r = calloc(1, sizeof(*r));
	if (!r) {
		job_free(&job);
		return -ENOMEM;
	}
	*r = (struct resolver){ .keys = keys, .done = done, .userdata = userdata };
	snprintf(what, sizeof(what), "resolve %s", name);
	e = child_start(event, &(struct child_spec){
				.what = what, .spawner = spawner, .role = SANDBOX_RESOLVE,
				.job = job.fd, .kept = -1, .bytes = sizeof(struct resolved),
				.limit_usec = keys->connect_timeout_usec, .alive = alive },
			on_answer, r, &r->child);
	if (e < 0) {
		job_free(&job);
		free(r);
		return e;
	}
	r->job = job;
	*ret = r;
	return 0;
}

struct resolver *resolver_cancel(struct resolver *r)
{
	if (r) {
		child_cancel(r->child);
		job_free(&r->job);
		free(r);
	}
	return NULL;
}
