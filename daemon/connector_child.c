/* What a connector does in its process: dial, shake hands, say what came of it. */
#include "daemon/connector_child.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libnbd.h>
#include <nbdd.h>
#include "daemon/ktls.h"
#include "daemon/log.h"
#include "daemon/tls_image.h"
#include "lib/util/cleanup.h"

#define WAY_PAUSE_MSEC	5
/* Who is not connected so long after the first of them, whose server is the same, tries again
 * soon: its way was lost, where a backlog was full. */
#define LATE_MSEC	250

/* A vsock is connected before power is dropped, and no other connector needs the calls for it
 * then.  The socket of a path comes connected: its permissions are for root. */
static int reach(const struct connector_job *job, int kept)
{
	const struct server *s = job->tasks[0].server;
	const struct nbdd_address *a = &s->addresses[0];
	_cleanup_close_ int fd = -1;

	if (a->addr.ss_family != AF_VSOCK)
		return kept;
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&a->addr, a->len) < 0)
		return -errno;
	return STEAL_FD(fd);
}

void connector_reach(int sock, int kept, void *arg)
{
	const struct server *s = arg;
	const struct nbdd_address *a = &s->addresses[0];
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool done = fd >= 0 && connect(fd, (const struct sockaddr *)&a->addr, a->len) == 0;
	int32_t error = done ? 0 : errno;

	fd_send(sock, &error, sizeof(error), &fd, done);
}

int connector_prepare(void *arg)
{
	struct child_given *given = arg;
	struct connector_job *job;
	int r = job_copy(given->job, &given->mapped);

	if (r >= 0)
		r = connector_job_read(&given->mapped, &job);
	if (r < 0) {
		log_error("a connector cannot use its job: %s", strerror(-r));
		_exit(1);
	}
	given->work = job;
	if (tls_plan_asks_kernel(&job->tasks[0].tls) && job->tasks[0].tls.load)
		ktls_load();
	return reach(job, given->kept);
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

void connector_not_reached(struct connect_answer *a, const struct server *s, int error)
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
static int take_tls(struct nbd_handle *h, const struct connector_task *t,
		    struct connect_answer *a)
{
	char message[TLS_WHY_MAX];
	int fd = tls_plan_finish(&t->tls, h, &a->info, &a->tls, &a->state, message);

	if (fd < -1)
		answer_error(a, t->server, -fd, message);
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
static int set_up(struct nbd_handle *h, const struct connector_task *t)
{
	if (nbd_set_request_structured_replies(h, false) < 0)
		return -1;
	return nbd_set_export_name(h, t->target->export_name);
}

static int describe_export(struct nbd_handle *h, struct connect_answer *a)
{
	int64_t size = nbd_get_size(h), flags = nbdd_get_transmission_flags(h);

	if (size < 0 || flags < 0)
		return -1;
	a->info.size = (uint64_t)size;
	a->info.flags = (uint16_t)flags;
	a->info.block_minimum = (uint32_t)block_size(h, LIBNBD_SIZE_MINIMUM);
	a->info.payload_maximum = (uint32_t)block_size(h, LIBNBD_SIZE_MAXIMUM);
	return 0;
}

static int negotiate(struct nbd_handle *h, const struct connector_task *t, int fd,
		     struct connect_answer *a)
{
	struct nbdd_tls_credentials credentials;

	if (set_up(h, t) < 0 ||
	    tls_plan_apply(&t->tls, h, t->server, fd, &credentials) < 0 ||
	    nbd_connect_socket(h, fd) < 0 || describe_export(h, a) < 0 ||
	    read_samples(h, t->samples, a) < 0)
		return -1;
	return nbd_get_tls_negotiated(h) > 0 ? take_tls(h, t, a) : nbdd_take_socket(h);
}

/* The first stage: a connected socket, of which nothing has been read; -1 has its answer. */
static int dial(const struct connector_task *t, int kept, struct connect_answer *a)
{
	const struct server *s = t->server;
	int fd = kept;

	if (server_is_local(s) && kept < 0) {
		connector_not_reached(a, s, -kept);
		return -1;
	}
	if (!server_is_local(s))
		fd = nbdd_dial(s->addresses, s->n_addresses);
	if (fd < 0)
		answer_nbd_error(a, s);
	return fd;
}

/* The second: what a server can make of this process has its sockets and SOCK, no more. */
static int shake_hands(const struct connector_task *t, int fd, struct connect_answer *a)
{
	struct nbd_handle *h = nbd_create();

	fd = h ? negotiate(h, t, fd, a) : -1;
	if (fd < 0 && !a->error)
		answer_nbd_error(a, t->server);
	return fd;
}

/* Only so many descriptors may be on their way from all processes of this user, as one of
 * them may have open (unix(7), ETOOMANYREFS); nbdd takes them one by one. */
static void send_answer(int sock, const struct connect_answer *a, int fd)
{
	while (fd_send(sock, a, sizeof(*a), &fd, fd >= 0) == -ETOOMANYREFS)
		poll(NULL, 0, WAY_PAUSE_MSEC);
}

static void serve_one(const struct connector_job *job, const struct sandbox *sandbox, int sock,
		      int kept)
{
	const struct connector_task *t = &job->tasks[0];
	struct connect_answer a = {};
	int fd = dial(t, kept, &a);

	if (sandbox_filter(sandbox, SANDBOX_NEGOTIATE) < 0)
		return;
	if (t->target->preinit_size)
		a.info.size = t->target->preinit_size;
	else if (fd >= 0)
		fd = shake_hands(t, fd, &a);
	if (t->tls.image)
		explicit_bzero(t->tls.image, tls_image_size(t->tls.image));
	send_answer(sock, &a, fd);
}

/* ---- several exports of one server -------------------------------------------------- */

struct talk {
	struct nbd_handle *h;		/* NULL: it has been answered */
	int fd;				/* connected; then the handle's */
};

static void answer(int sock, size_t place, struct connect_answer *a, int fd)
{
	a->place = (uint32_t)place;
	send_answer(sock, a, fd);
}

/* Its end, good (OK) or bad. */
static void end_talk(const struct connector_job *job, int sock, size_t i, struct talk *k,
		     bool ok)
{
	struct connect_answer a = {};
	int fd = -1;

	if (ok && describe_export(k->h, &a) == 0)
		fd = nbdd_take_socket(k->h);
	if (fd < 0)
		answer_nbd_error(&a, job->tasks[i].server);
	answer(sock, i, &a, fd);
	fd_close(fd);
	k->h = NULL;		/* the process ends soon, and its memory with it */
}

static void begin_talk(const struct connector_job *job, int sock, size_t i, struct talk *k)
{
	k->h = nbd_create();
	if (!k->h || set_up(k->h, &job->tasks[i]) < 0 ||
	    nbd_aio_connect_socket(k->h, k->fd) < 0)
		end_talk(job, sock, i, k, false);
}

static void go_on(const struct connector_job *job, int sock, size_t i, struct talk *k,
		  short revents)
{
	unsigned direction = nbd_aio_get_direction(k->h);
	int r = 0;

	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (revents & ~POLLOUT))
		r = nbd_aio_notify_read(k->h);
	else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && revents)
		r = nbd_aio_notify_write(k->h);
	if (r < 0 || nbd_aio_is_ready(k->h) > 0)
		end_talk(job, sock, i, k, r == 0);
}

static void not_dialled(struct connect_answer *a, const struct server *s, int error,
			bool others_are)
{
	char text[64];

	snprintf(text, sizeof(text), "connect: %s", strerror(error));
	answer_error(a, s, error, text);
	if (error == ETIMEDOUT && others_are)
		a->failure = FAILURE_SOON;
}

/* They are all of one server. */
static void dial_all(const struct connector_job *job, int sock, struct talk *talks)
{
	const struct server *s = job->tasks[0].server;
	int fds[CONNECTOR_TASKS_MAX];
	int n = nbdd_dial_several(s->addresses, s->n_addresses, fds, job->n, LATE_MSEC);

	for (size_t i = 0; i < job->n; i++) {
		struct connect_answer a = {};

		talks[i].fd = n < 0 ? -1 : fds[i];
		if (talks[i].fd >= 0)
			continue;
		if (n < 0)
			answer_nbd_error(&a, s);
		else
			not_dialled(&a, s, -fds[i], n > 0);
		answer(sock, i, &a, -1);
	}
}

/* Waits for any of them; how many there were. */
static size_t wait_all(struct pollfd *fds, const struct talk *talks, size_t n)
{
	size_t waiting = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned direction = talks[i].h ? nbd_aio_get_direction(talks[i].h) : 0;

		fds[i] = (struct pollfd){ .fd = talks[i].h ? nbd_aio_get_fd(talks[i].h) : -1 };
		if (direction & LIBNBD_AIO_DIRECTION_READ)
			fds[i].events |= POLLIN;
		if (direction & LIBNBD_AIO_DIRECTION_WRITE)
			fds[i].events |= POLLOUT;
		waiting += talks[i].h != NULL;
	}
	if (waiting && poll(fds, n, -1) < 0)
		return 0;
	return waiting;
}

/* One that does not answer holds none of the others up. */
static void serve_several(const struct connector_job *job, const struct sandbox *sandbox,
			  int sock)
{
	struct talk talks[CONNECTOR_TASKS_MAX] = {};
	struct pollfd fds[CONNECTOR_TASKS_MAX];

	dial_all(job, sock, talks);
	if (sandbox_filter(sandbox, SANDBOX_NEGOTIATE) < 0)
		return;
	for (size_t i = 0; i < job->n; i++)
		if (talks[i].fd >= 0)
			begin_talk(job, sock, i, &talks[i]);
	while (wait_all(fds, talks, job->n))
		for (size_t i = 0; i < job->n; i++)
			if (talks[i].h && fds[i].revents)
				go_on(job, sock, i, &talks[i], fds[i].revents);
}

void connector_main(int sock, int kept, void *arg)
{
	const struct child_given *given = arg;
	const struct connector_job *job = given->work;

	if (job->n == 1)
		serve_one(job, given->sandbox, sock, kept);
	else
		serve_several(job, given->sandbox, sock);
}
