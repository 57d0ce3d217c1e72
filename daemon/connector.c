#include "daemon/connector.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <libnbd.h>
#include <nbdd.h>
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"

/* The child's answer; the socket comes with it. */
struct connect_answer {
	int32_t error;			/* 0 or errno */
	uint32_t failure;		/* enum connect_failure */
	char message[CONNECTOR_MESSAGE_MAX];
	struct export_info info;
	struct link_tls tls;
	struct digests digests;
	struct nbdd_tls_state state;
};
_Static_assert(sizeof(struct connect_answer) <= CHILD_MESSAGE_MAX, "must fit one message");

struct connector {
	struct child *child;
	const struct target *target;	/* valid at the fork; not used later */
	struct tls_plan tls;		/* the same */
	const struct sandbox *sandbox;
	const struct samples *samples;	/* the same; or NULL */
	char label[TARGET_HOST_MAX + 10];
	uint64_t limit_usec;
	connector_done_fn done;
	void *userdata;
};

static const struct server *server_of(const struct connector *c)
{
	return &c->target->servers[c->target->current];
}

/* ---- in the child ------------------------------------------------------------------ */

/* A Unix socket is opened before power is dropped: its permissions are for root.  So is a
 * vsock, for which no other connector needs the power then. */
static int dial_local(void *arg)
{
	const struct nbdd_address *a = &server_of(arg)->addresses[0];
	_cleanup_close_ int fd = -1;

	if (!server_is_local(server_of(arg)))
		return -1;
	fd = socket(a->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&a->addr, a->len) < 0)
		return -errno;
	return STEAL_FD(fd);
}

static const struct {
	int error;
	enum connect_failure failure;
} failures[] = {
	{ 0, FAILURE_SOON },			/* end of file in the handshake */
	{ ECONNREFUSED, FAILURE_SOON },
	{ ECONNRESET, FAILURE_SOON },
	{ EPIPE, FAILURE_SOON },
	{ EAGAIN, FAILURE_SOON },		/* backlog of a Unix socket is full */
	{ EKEYREJECTED, FAILURE_SOON },		/* by the kernel: its TLS cannot follow */
	{ ESHUTDOWN, FAILURE_SOON },		/* NBD_REP_ERR_SHUTDOWN */
	{ ETIMEDOUT, FAILURE_BACKOFF },
	{ EHOSTUNREACH, FAILURE_BACKOFF },
	{ ENETUNREACH, FAILURE_BACKOFF },
	{ ENETDOWN, FAILURE_BACKOFF },
	{ EADDRNOTAVAIL, FAILURE_BACKOFF },
	{ EMFILE, FAILURE_BACKOFF },
	{ ENOMEM, FAILURE_BACKOFF },
};

static enum connect_failure classify(int error)
{
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++)
		if (failures[i].error == error)
			return failures[i].failure;
	return FAILURE_PERMANENT;
}

static void answer_dial_error(struct connect_answer *a, const struct server *s, int error)
{
	a->error = error;
	a->failure = error == ENOENT ? FAILURE_SOON : classify(error);
	snprintf(a->message, sizeof(a->message), "connect to %s%s: %s",
		 s->host[0] == '/' ? "socket " : "", s->host, strerror(error));
}

/* The library's message begins with the function's name, which says nothing to people. */
static void answer_nbd_error(struct connect_answer *a, const struct server *s)
{
	const char *text = nbd_get_error(), *rest = strstr(text, ": ");

	if (strncmp(text, "nbd", 3) == 0 && rest)
		text = rest + 2;
	a->error = nbd_get_errno() ? nbd_get_errno() : ECONNRESET;
	a->failure = classify(nbd_get_errno());
	snprintf(a->message, sizeof(a->message), "%s: %s", s->label, text);
}

static int64_t block_size(struct nbd_handle *h, int type)
{
	int64_t size = nbd_get_block_size(h, type);

	return size > 0 && size <= UINT32_MAX ? size : 0;
}

/* An error that is not the library's. */
static void answer_error(struct connect_answer *a, const struct server *s, int error,
			 const char *text)
{
	a->error = error;
	a->failure = classify(error);
	snprintf(a->message, sizeof(a->message), "%s: %s", s->label, text);
}

/* The socket; or -1 with an error of the library or in A. */
static int take_tls(struct nbd_handle *h, const struct connector *c, struct connect_answer *a)
{
	char message[TLS_WHY_MAX];
	int fd = tls_plan_finish(&c->tls, h, &a->info, &a->tls, &a->state, message);

	if (fd < -1)
		answer_error(a, server_of(c), -fd, message);
	return MAX(fd, -1);
}

static int read_sample(void *buf, const struct sample *s, void *arg)
{
	if (nbd_pread(arg, buf, s->len, s->offset, 0) < 0)
		return nbd_get_errno() ? -nbd_get_errno() : -EIO;
	return 0;
}

/* An export too small for them is none that the parent will take. */
static int read_samples(struct nbd_handle *h, const struct samples *s,
			struct connect_answer *a)
{
	const struct sample *last = s && s->n ? &s->list[s->n - 1] : NULL;

	if (!last || last->offset + last->len > a->info.size)
		return 0;
	return samples_digest(s, read_sample, h, &a->digests);
}

/* Simple replies only and no meta context: that is all the kernel speaks. */
static int negotiate(struct nbd_handle *h, const struct connector *c, int fd,
		     struct connect_answer *a)
{
	struct nbdd_tls_credentials credentials;
	int64_t size, flags;

	if (nbd_set_request_structured_replies(h, false) < 0 ||
	    nbd_set_export_name(h, c->target->export_name) < 0 ||
	    tls_plan_apply(&c->tls, h, server_of(c), fd, &credentials) < 0 ||
	    nbd_connect_socket(h, fd) < 0)
		return -1;
	size = nbd_get_size(h);
	flags = nbdd_get_transmission_flags(h);
	if (size < 0 || flags < 0)
		return -1;
	a->info.size = (uint64_t)size;
	a->info.flags = (uint16_t)flags;
	a->info.block_minimum = (uint32_t)block_size(h, LIBNBD_SIZE_MINIMUM);
	a->info.payload_maximum = (uint32_t)block_size(h, LIBNBD_SIZE_MAXIMUM);
	if (read_samples(h, c->samples, a) < 0)
		return -1;
	return nbd_get_tls_negotiated(h) > 0 ? take_tls(h, c, a) : nbdd_take_socket(h);
}

/* The first stage: a connected socket, of which nothing has been read; -1 has its answer. */
static int dial(const struct connector *c, int kept, struct connect_answer *a)
{
	const struct server *s = server_of(c);
	int fd = kept;

	if (server_is_local(s) && kept < 0) {
		answer_dial_error(a, s, -kept);
		return -1;
	}
	if (!server_is_local(s))
		fd = nbdd_dial(s->addresses, s->n_addresses);
	if (fd < 0)
		answer_nbd_error(a, s);
	return fd;
}

/* The second: what a server can make of this process has this socket and SOCK, no more. */
static int shake_hands(const struct connector *c, int fd, struct connect_answer *a)
{
	struct nbd_handle *h = nbd_create();

	fd = h ? negotiate(h, c, fd, a) : -1;
	if (fd < 0 && !a->error)
		answer_nbd_error(a, server_of(c));
	return fd;
}

static void connector_main(int sock, int kept, void *arg)
{
	const struct connector *c = arg;
	struct connect_answer a = {};
	int fd = -1;

	fd = dial(c, kept, &a);
	if (sandbox_filter(c->sandbox, SANDBOX_NEGOTIATE) < 0)
		return;
	if (c->target->preinit_size)
		a.info.size = c->target->preinit_size;
	else if (fd >= 0)
		fd = shake_hands(c, fd, &a);
	if (c->tls.secrets)
		tls_secrets_wipe(c->tls.secrets);
	fd_send(sock, &a, sizeof(a), &fd, fd >= 0);
}

/* ---- in the daemon ----------------------------------------------------------------- */

static bool usable_socket(int fd)
{
	int type = 0, domain = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return false;
	len = sizeof(domain);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0)
		return false;
	return domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX ||
	       domain == AF_VSOCK;
}

static void _printf_(3, 4) fail(struct connector_result *r, enum connect_failure failure,
				const char *format, ...)
{
	va_list ap;

	r->failure = failure;
	va_start(ap, format);
	vsnprintf(r->message, sizeof(r->message), format, ap);
	va_end(ap);
}

/* The child has met the server's bytes: believe nothing that was not checked. */
static void check_answer(const struct child_answer *answer, struct connection *connection,
			 const struct connector *c, struct connector_result *r)
{
	char limit[FORMAT_MAX];
	const struct connect_answer *a = answer->data;

	if (answer->error == -ETIMEDOUT)
		fail(r, FAILURE_BACKOFF, "%s: no negotiated connection within %s "
		     "(connect-timeout)", c->label, format_usec(limit, c->limit_usec));
	else if (answer->error < 0 || answer->len != sizeof(*a))
		fail(r, FAILURE_BACKOFF, "the connector process died");
	else if (a->error) {
		r->failure = MIN(a->failure, (uint32_t)FAILURE_PERMANENT);
		clean_text(r->message, sizeof(r->message), a->message,
			    strnlen(a->message, sizeof(a->message)));
		clean_text(r->kernel_tls, sizeof(r->kernel_tls), a->tls.why_not,
			   strnlen(a->tls.why_not, sizeof(a->tls.why_not)));
	} else if (answer->fd < 0 || !usable_socket(answer->fd))
		fail(r, FAILURE_PERMANENT, "the connector process sent no usable socket");
	else if (a->info.size == 0 || a->info.size > INT64_MAX)
		fail(r, FAILURE_PERMANENT,
		     "server offers a size of %llu bytes, expected 1 to %lld",
		     (unsigned long long)a->info.size, (long long)INT64_MAX);
	else if (a->digests.n > SAMPLES_MAX)
		fail(r, FAILURE_PERMANENT, "the connector process sent %u digests, at most "
		     "%d are possible", a->digests.n, SAMPLES_MAX);
	else {
		r->digests = &a->digests;
		*connection = (struct connection){ .fd = answer->fd, .info = a->info,
						   .tls = a->tls, .state = a->state };
		link_tls_clean(&connection->tls);
		r->connection = connection;
	}
	if (!r->connection)
		fd_close(answer->fd);
}

static void on_answer(const struct child_answer *answer, void *userdata)
{
	struct connector *c = userdata;
	connector_done_fn done = c->done;
	void *done_userdata = c->userdata;
	struct connector_result result = {};
	struct connection connection;

	check_answer(answer, &connection, c, &result);
	free(c);
	done(&result, done_userdata);
	if (result.connection)
		explicit_bzero(&connection.state, sizeof(connection.state));
}

int connector_start(sd_event *event, const char *name, const struct target *target,
		    const struct tls_plan *tls, const struct sandbox *sandbox,
		    uint64_t limit_usec, const struct samples *samples,
		    connector_done_fn done, void *userdata, struct connector **ret)
{
	struct connector *c = calloc(1, sizeof(*c));
	char what[16];
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct connector){ .target = target, .tls = *tls, .sandbox = sandbox,
				 .samples = samples, .done = done, .userdata = userdata };
	memcpy(c->label, server_of(c)->label, sizeof(c->label));
	c->limit_usec = limit_usec;
	snprintf(what, sizeof(what), "connect %s", name);
	tls_secrets_expose(tls->secrets, true);
	r = child_start(event, &(struct child_spec){
				.what = what, .prepare = dial_local, .run = connector_main,
				.arg = c, .sandbox = sandbox, .role = SANDBOX_DIAL,
				.limit_usec = limit_usec },
			on_answer, c, &c->child);
	tls_secrets_expose(tls->secrets, false);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct connector *connector_cancel(struct connector *c)
{
	if (c) {
		child_cancel(c->child);
		free(c);
	}
	return NULL;
}
