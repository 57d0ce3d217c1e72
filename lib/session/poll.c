/* Progress: what to wait for, and what to do when it is there. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "lib/session/session.h"

void session_update_direction(struct nbd_handle *h)
{
	enum phase p = atomic_load_explicit(&h->phase, memory_order_relaxed);
	unsigned d = 0;

	if (p == PHASE_CONNECTING) {
		d = h->dial && dial_events(h->dial) == POLLIN ? LIBNBD_AIO_DIRECTION_READ
							      : LIBNBD_AIO_DIRECTION_WRITE;
	} else if (p == PHASE_TRANSMISSION || phase_is_connecting(p)) {
		d = LIBNBD_AIO_DIRECTION_READ;
		if (tx_waiting(h))
			d |= LIBNBD_AIO_DIRECTION_WRITE;
	}
	atomic_store_explicit(&h->direction, (uint8_t)d, memory_order_relaxed);
}

/* Sequentially consistent, as what command_issue does the other way round: a thread that
 * reads a direction without its request is seen to have asked. */
unsigned session_direction(struct nbd_handle *h)
{
	atomic_store_explicit(&h->direction_asked, true, memory_order_relaxed);
	atomic_store(&h->direction_stale, false);
	return atomic_load(&h->direction);
}

#define LOOP_ROUNDS 4		/* show that it is one */

static void loop_round(struct nbd_handle *h)
{
	bool asked = atomic_exchange_explicit(&h->direction_asked, false, memory_order_relaxed);

	h->loop_rounds = asked ? (uint8_t)MIN(h->loop_rounds + 1, LOOP_ROUNDS) : 0;
	if (h->burst)
		h->last_burst = h->burst;
	h->burst = 0;
	atomic_store_explicit(&h->direction_stale, true, memory_order_relaxed);
}

bool session_in_loop(struct nbd_handle *h)
{
	return h->loop_rounds == LOOP_ROUNDS && h->last_burst > 1 &&
	       atomic_load_explicit(&h->direction_stale, memory_order_relaxed);
}

int session_fd(struct nbd_handle *h)
{
	if (h->dial)
		return dial_fd(h->dial);
	return h->transport.ops ? h->transport.fd : -EINVAL;
}

ssize_t session_fill(struct nbd_handle *h)
{
	const struct call *call = h->call;
	ssize_t r;

	pthread_mutex_unlock(&h->lock);
	r = h->transport.ops->fill(&h->transport);
	pthread_mutex_lock(&h->lock);
	h->call = call;
	return r;
}

ssize_t session_receive(struct nbd_handle *h, const struct iovec *iov, size_t n, bool wait)
{
	const struct call *call = h->call;
	ssize_t r;

	if (wait && h->transport.tls) {
		r = session_fill(h);
		if (r < 0)
			return r;
		wait = false;
	}
	if (!wait)
		return h->transport.ops->recv(&h->transport, iov, n, false);
	/* Only this thread uses h->rx and h->option.in meanwhile: h->polling tells others. */
	pthread_mutex_unlock(&h->lock);
	r = h->transport.ops->recv(&h->transport, iov, n, true);
	pthread_mutex_lock(&h->lock);
	h->call = call;
	return r;
}

/* NBD_OPT_ABORT was sent: a server may close without a reply. */
static bool is_aborting(struct nbd_handle *h)
{
	return atomic_load(&h->phase) == PHASE_OPTION && h->option.by_user &&
	       h->option.plan == PLAN_ABORT;
}

/* A server that dislikes the client's certificate may say so only by hanging up. */
static bool hung_up_on_tls(struct nbd_handle *h)
{
	char message[TLS_MESSAGE_MAX];
	int r = h->tls_unproven ? tls_hang_up_reason(&h->transport, message) : 0;

	if (r < 0)
		session_error(h, -r, "handshake: %s", message);
	return r < 0;
}

/* The server hung up.  After NBD_CMD_DISC or NBD_OPT_ABORT, or when nothing was asked of it,
 * that is an end in order. */
static int end_of_file(struct nbd_handle *h)
{
	enum phase p = atomic_load(&h->phase);

	bool idle = p == PHASE_TRANSMISSION && !atomic_load(&h->in_flight) && !h->rx.partial;

	if (idle || h->disconnecting || is_aborting(h)) {
		session_closed(h);
		return 0;
	}
	if (!hung_up_on_tls(h))
		session_error(h, p == PHASE_TRANSMISSION ? ENOTCONN : 0,
			      "recv: server disconnected unexpectedly");
	return session_die(h);
}

static int receive_failed(struct nbd_handle *h, int error)
{
	const char *tls_said = h->transport.tls ? h->transport.ops->message(&h->transport) : NULL;

	/* A peer that closes with our farewell unread resets the connection. */
	if (error == ECONNRESET &&
	    (is_aborting(h) || (h->disconnecting && !atomic_load(&h->in_flight)))) {
		session_closed(h);
		return 0;
	}
	if (error != EPROTO && (error != ECONNRESET || !hung_up_on_tls(h)))
		session_error(h, error, "recv%s%s", tls_said ? ": " : "", tls_said ? tls_said : "");
	return session_die(h);
}

/* Receive once, by phase: as transport_ops.recv, -EPROTO when the error is set. */
static ssize_t receive_once(struct nbd_handle *h, bool wait)
{
	ssize_t r;

	switch (atomic_load(&h->phase)) {
	case PHASE_TRANSMISSION:
		return rx_receive(h, wait);
	case PHASE_TLS:
		return starttls_receive(h, wait);
	default:
		r = handshake_receive(h, wait);
		h->tls_unproven = h->tls_unproven && r <= 0;
		return r;
	}
}

static bool has_connection(struct nbd_handle *h)
{
	enum phase p = atomic_load(&h->phase);

	return p == PHASE_TRANSMISSION || (phase_is_connecting(p) && p != PHASE_CONNECTING);
}

/* Bytes that poll(2) does not show. */
static bool has_pending(struct nbd_handle *h)
{
	return h->transport.tls && h->transport.ops->pending(&h->transport);
}

/* Receive what is there, WAIT for something.  1 when something came, 0 when nothing was
 * there, -1. */
static int receive(struct nbd_handle *h, bool wait)
{
	bool any = false;

	do {
		ssize_t r = receive_once(h, wait && !any);

		if (r == -EAGAIN)
			return any;
		if (r == 0)
			return end_of_file(h) < 0 ? -1 : 1;
		if (r < 0)
			return receive_failed(h, (int)-r);
		any = true;
	} while (has_connection(h) && has_pending(h));
	return 1;
}

/* Send what is queued.  A send that fails is told only when the server's last words have
 * been read: they say more. */
static int flush(struct nbd_handle *h)
{
	int r = 0;

	if (tx_waiting(h) && !h->tx.error)
		r = tx_flush(h);
	if (r < 0 && r != -EAGAIN)
		h->tx.error = -r;
	if (!h->tx.error)
		return 0;
	r = receive(h, false);
	if (r != 0)
		return r < 0 ? -1 : 0;
	session_error(h, h->tx.error, "send");
	return session_die(h);
}

/* An event that the caller saw on the descriptor. */
static int notify(struct nbd_handle *h, unsigned event, bool readable)
{
	enum phase p = atomic_load(&h->phase);
	int r;

	loop_round(h);
	if (p == PHASE_CONNECTING)
		return h->polling ? 0 : dialling_step(h, NULL);
	if (!has_connection(h) ||
	    (!readable && !(atomic_load(&h->direction) & LIBNBD_AIO_DIRECTION_WRITE)))
		return session_error(h, EINVAL, "external event %u is invalid in state %s",
				     event, session_state_name(h));
	if (h->polling)
		return 0;	/* another thread is at it */
	r = readable && receive(h, false) < 0 ? -1 : 0;
	/* What is queued leaves also after a notify_read: callers may call one of the two. */
	if (r == 0 && has_connection(h))
		r = flush(h);
	session_update_direction(h);
	return r;
}

int session_notify_read(struct nbd_handle *h)
{
	return notify(h, 0, true);
}

int session_notify_write(struct nbd_handle *h)
{
	return notify(h, 1, false);
}

/* poll(2) with the lock released, on N descriptors and EXTRA_FD.  1 when one is ready. */
static int wait_ready(struct nbd_handle *h, struct pollfd *fds, size_t n, int extra_fd,
		      uint64_t until)
{
	const struct call *call = h->call;
	int r;

	if (extra_fd >= 0)
		fds[n++] = (struct pollfd) { .fd = extra_fd, .events = POLLIN };
	pthread_mutex_unlock(&h->lock);
	do
		r = poll(fds, n, usec_poll_timeout(until));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		r = -errno;
	pthread_mutex_lock(&h->lock);
	h->call = call;
	return r;
}

/* While the socket is being connected: its own descriptors and times. */
static int poll_dial(struct nbd_handle *h, int extra_fd, uint64_t until)
{
	struct pollfd fds[DIAL_ATTEMPTS_MAX + 1];
	uint64_t step;
	size_t n = dial_poll(h->dial, fds, &step);
	int r = wait_ready(h, fds, n, extra_fd, MIN(step, until));

	if (r < 0) {
		session_error(h, -r, "poll");
		return session_die(h);
	}
	if (r == 0 && step > until)
		return 0;
	return dialling_step(h, fds) < 0 ? -1 : 1;
}

static int poll_socket(struct nbd_handle *h, int extra_fd, uint64_t until)
{
	bool forever = until == USEC_INFINITY && extra_fd < 0 && !tx_waiting(h);
	struct pollfd fds[2];
	int r;

	if (!has_pending(h)) {
		/* One system call when there is nothing else to wait for. */
		if (forever)
			return receive(h, true) < 0 ? -1 : 1;
		fds[0] = (struct pollfd) { .fd = h->transport.fd, .events = POLLIN };
		if (tx_waiting(h))
			fds[0].events |= POLLOUT;
		r = wait_ready(h, fds, 1, extra_fd, until);
		if (r < 0) {
			session_error(h, -r, "poll");
			return session_die(h);
		}
		if (r == 0)
			return 0;
		if (!(fds[0].revents & ~POLLOUT))
			return 1;	/* the flush comes next */
	}
	return receive(h, false) < 0 ? -1 : 1;
}

/* Another thread waits on the socket: sleep until it is back. */
static int sleep_until(struct nbd_handle *h, uint64_t until)
{
	struct timespec t;
	int r = 0;

	h->sleepers++;
	if (until == USEC_INFINITY) {
		pthread_cond_wait(&h->woken, &h->lock);
	} else {
		t.tv_sec = (time_t)(until / USEC_PER_SEC);
		t.tv_nsec = (long)(until % USEC_PER_SEC) * 1000;
		r = pthread_cond_clockwait(&h->woken, &h->lock, CLOCK_MONOTONIC, &t);
	}
	h->sleepers--;
	return r == ETIMEDOUT ? 0 : 1;
}

void session_wake(struct nbd_handle *h)
{
	if (h->sleepers)
		pthread_cond_broadcast(&h->woken);
	if (h->pushing)
		eventfd_write(h->wake_fd, 1);
}

/* Wait for room in the socket and send. */
static int push(struct nbd_handle *h, uint64_t until)
{
	struct pollfd fds[2] = { { .fd = h->transport.fd, .events = POLLOUT } };
	eventfd_t n;
	int r;

	h->pushing = true;
	r = wait_ready(h, fds, 1, h->wake_fd, until);
	h->pushing = false;
	if (r > 0 && fds[1].revents)
		eventfd_read(h->wake_fd, &n);
	if (r > 0 && fds[0].revents && has_connection(h) && !h->tx.error)
		command_kick(h);
	session_wake(h);
	return r == 0 ? 0 : 1;
}

/* Another thread waits on the socket. */
static int wait_beside(struct nbd_handle *h, uint64_t until)
{
	if (!tx_waiting(h) || h->tx.error || h->pushing)
		return sleep_until(h, until);
	if (h->wake_fd < 0)
		h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return h->wake_fd < 0 ? sleep_until(h, until) : push(h, until);
}

void session_send_beside(struct nbd_handle *h, uint64_t end)
{
	const struct call *call = h->call;

	while (h->polling && has_connection(h) && !h->tx.error &&
	       (h->tx.sent < end || transport_unsent(&h->transport)))
		wait_beside(h, USEC_INFINITY);
	h->call = call;
}

/* One round: send, wait until UNTIL, receive.  1 progress, 0 time is up, -1. */
static int poll_round(struct nbd_handle *h, int extra_fd, uint64_t until)
{
	const struct call *call = h->call;
	int r;

	if (h->polling) {
		r = wait_beside(h, until);
		h->call = call;
		return r;
	}
	if (has_connection(h) && flush(h) < 0)
		return -1;
	if (!has_connection(h) && !h->dial)
		return 1;
	h->polling = true;
	r = h->dial ? poll_dial(h, extra_fd, until) : poll_socket(h, extra_fd, until);
	h->polling = false;
	if (r == 1 && has_connection(h) && tx_waiting(h) && flush(h) < 0)
		r = -1;
	session_update_direction(h);
	session_wake(h);
	return r;
}

int session_poll(struct nbd_handle *h, int extra_fd, int timeout_msec)
{
	uint64_t until = USEC_INFINITY;

	if (!has_connection(h) && !h->dial)
		return session_error(h, EINVAL, "nothing to poll for in state %s",
				     session_state_name(h));
	if (timeout_msec >= 0)
		until = now_usec() + (uint64_t)timeout_msec * USEC_PER_MSEC;
	return poll_round(h, extra_fd, until);
}

int session_wait_connected(struct nbd_handle *h)
{
	while (phase_is_connecting(atomic_load(&h->phase)))
		if (poll_round(h, -1, USEC_INFINITY) < 0)
			return -1;
	return 0;
}

int session_wait_command(struct nbd_handle *h, uint64_t cookie)
{
	struct command *c = command_find(h, cookie);
	const char *name = command_name(c->type);
	int r = 0, error;

	while (r >= 0 && c->state != COMMAND_COMPLETE)
		r = poll_round(h, -1, USEC_INFINITY);
	/* A connection that broke has completed all commands; if this one was answered well
	 * before, what came behind its reply is the next call's trouble. */
	error = c->error;
	command_retire(h, c);
	if (!error)
		return 0;
	return r < 0 ? -1 : session_error(h, error, "%s: command failed", name);
}
