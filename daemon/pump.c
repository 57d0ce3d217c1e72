#include "daemon/pump.h"

#include <endian.h>
#include <errno.h>
#include <linux/nbd.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)

int pump_init(struct pump *p, int plain, int server, const struct nbdd_tls_state *state)
{
	int r;

	p->plain = plain;
	p->server = server;
	p->linger_usec = PUMP_LINGER_USEC;
	p->raw = !state->version;
	if (p->raw)
		return 0;
	r = record_way_init(&p->out.way, state, &state->send);
	if (r >= 0)
		r = record_way_init(&p->in.way, state, &state->receive);
	if (r < 0)
		record_way_deinit(&p->out.way);
	return r;
}

void pump_deinit(struct pump *p)
{
	record_way_deinit(&p->out.way);
	record_way_deinit(&p->in.way);
	explicit_bzero(p, sizeof(*p));
}

/* The first cause is the one to tell. */
static void because(struct pump *p, const char *why, int error)
{
	if (p->why || p->error)
		return;
	p->why = why;
	p->error = error;
}

/* Nothing more is taken on either side, and the caller shuts both down: as long as the kernel's
 * is open, its requests go into it and are lost. */
static void end_both(struct pump *p)
{
	p->out.done = p->in.done = true;
}

/* ---- from the plain socket to the server ---- */

/* The records follow each other without a gap if all but the last are full. */
static ssize_t receive_plain(struct pump *p)
{
	struct record_way *w = &p->out.way;
	size_t stride = record_prefix(w) + RECORD_PLAIN_MAX + record_suffix(w);
	struct iovec iov[PUMP_RECORDS];
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = PUMP_RECORDS };
	ssize_t n;

	for (size_t i = 0; i < PUMP_RECORDS && !p->raw; i++)
		iov[i] = (struct iovec){ p->out.buffer + i * stride + record_prefix(w),
					 RECORD_PLAIN_MAX };
	if (p->raw) {
		iov[0] = (struct iovec){ p->out.buffer, sizeof(p->out.buffer) };
		m.msg_iovlen = 1;
	}
	do
		n = recvmsg(p->plain, &m, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* LEN bytes stand in the places of their records. */
static int seal(struct pump *p, size_t len)
{
	struct pump_out *o = &p->out;

	if (p->raw) {
		o->len = len;
		return 0;
	}
	while (len) {
		size_t n = MIN(len, (size_t)RECORD_PLAIN_MAX);
		ssize_t r = record_seal(&o->way, RECORD_DATA, o->buffer + o->len, n);

		if (r < 0)
			return (int)r;
		o->len += (size_t)r;
		len -= n;
	}
	return 0;
}

static void say_goodbye(struct pump_out *o)
{
	ssize_t r;

	memcpy(o->buffer + record_prefix(&o->way), RECORD_CLOSE_NOTIFY, 2);
	r = record_seal(&o->way, RECORD_ALERT, o->buffer, 2);
	o->first = 0;
	o->len = r > 0 ? (size_t)r : 0;
}

/* Nothing more is taken from the plain socket; the server is told at the end of what was. */
static void end_out(struct pump *p, bool can_send)
{
	p->out.eof = true;
	if (can_send && !p->raw) {
		say_goodbye(&p->out);
	} else {
		p->out.first = p->out.len = 0;
		p->out.done = !can_send;
	}
}

static bool fill_out(struct pump *p)
{
	ssize_t n = receive_plain(p);
	int r;

	if (n == -EAGAIN)
		return false;
	if (n <= 0) {
		because(p, "given up by the kernel", 0);
		end_out(p, true);
		return true;
	}
	r = seal(p, (size_t)n);
	if (r < 0) {
		because(p, r == -EOVERFLOW ? "as many TLS records were sent as one key is good "
			"for" : "encryption failed", 0);
		end_both(p);
	}
	return true;
}

static bool send_out(struct pump *p)
{
	struct pump_out *o = &p->out;
	ssize_t n;

	do
		n = send(p->server, o->buffer + o->first, o->len, FLAGS);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n < 0) {
		because(p, NULL, errno);
		/* What came before a reset is still delivered, and then the end. */
		if (errno == ECONNRESET || errno == EPIPE)
			end_out(p, false);
		else
			end_both(p);
		return true;
	}
	o->first += (size_t)n;
	o->len -= (size_t)n;
	if (!o->len)
		o->first = 0;
	return true;
}

/* Did anything move? */
static bool step_out(struct pump *p, bool readable, bool writable)
{
	struct pump_out *o = &p->out;
	bool moved = false;

	if (o->done)
		return false;
	if (!o->len && !o->eof && readable) {
		moved = fill_out(p);
		writable = true;		/* it is, as a rule */
	}
	if (o->len && writable)
		moved |= send_out(p);
	if (o->eof && !o->len && !o->done) {
		shutdown(p->server, SHUT_WR);
		o->done = moved = true;
	}
	return moved;
}

/* The last word of the driver before an orderly end, when all else has been answered. */
static bool is_goodbye(const uint8_t *p, size_t len)
{
	const struct nbd_request goodbye = { .magic = htobe32(NBD_REQUEST_MAGIC),
					     .type = htobe32(NBD_CMD_DISC) };

	return len == sizeof(goodbye) && memcmp(p, &goodbye, len) == 0;
}

static void last_words(struct pump *p)
{
	struct pump_out *o = &p->out;
	const uint8_t *data = o->buffer + (p->raw ? 0 : record_prefix(&o->way));
	ssize_t n = receive_plain(p);

	if (n > 0 && is_goodbye(data, (size_t)n) && seal(p, (size_t)n) == 0)
		send_out(p);
	if (p->raw || o->len)
		return;
	say_goodbye(o);
	if (o->len)
		send_out(p);
}

/* The kernel has given the connection up, and sends over another one what was not answered, and
 * then what comes after that: no request may reach this server behind them.  Nobody takes an
 * answer, either; TCP meets one by a reset, and drops what it has not sent. */
static void leave(struct pump *p)
{
	because(p, "given up by the kernel", 0);
	if (!p->out.len && !p->out.eof)		/* no record is cut short */
		last_words(p);
	end_both(p);
}

/* ---- from the server to the plain socket ---- */

/* What is left of a record moves to the front, so that all of it has room. */
static void make_room(struct pump_in *i)
{
	if (i->opened && i->end > i->opened)
		memmove(i->buffer, i->buffer + i->opened, i->end - i->opened);
	i->end -= i->opened;
	i->opened = 0;
}

static void end_in(struct pump *p, const char *why, int error)
{
	because(p, why, error);
	p->in.eof = true;
}

static void server_did(struct pump *p, const char *what)
{
	p->by_server |= !p->why && !p->error;
	end_in(p, what, 0);
}

static void fill_in(struct pump *p)
{
	struct pump_in *i = &p->in;
	ssize_t n;

	make_room(i);
	do
		n = recv(p->server, i->buffer + i->end, sizeof(i->buffer) - i->end,
			 MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0)
		i->end += (size_t)n;
	else if (n < 0)
		end_in(p, NULL, errno);
	else
		server_did(p, i->end ? "hung up in the middle of a TLS record"
				     : "closed the connection");
}

/* Open what has arrived, as far as there is room for the pieces. */
static void open_records(struct pump *p)
{
	struct pump_in *i = &p->in;
	struct record r;
	int e;

	if (p->raw && i->end > i->opened) {
		i->pieces[i->n_pieces++] = (struct iovec){ i->buffer + i->opened,
							   i->end - i->opened };
		i->opened = i->end;
	}
	if (p->raw)
		return;
	while (i->n_pieces < PUMP_PIECES) {
		e = record_open(&i->way, i->buffer + i->opened, i->end - i->opened, &r);
		if (e == 0)
			return;
		if (e > 0)
			e = record_control(&i->control, i->way.version, &r);
		if (e != 0) {
			/* It is told of later, when what came before is delivered. */
			server_did(p, e > 0 ? "closed the connection" : r.why);
			i->opened = i->end = 0;
			return;
		}
		i->opened += r.size;
		if (r.type == RECORD_DATA && r.len)
			i->pieces[i->n_pieces++] = (struct iovec){ (void *)r.data, r.len };
	}
}

static void delivered(struct pump_in *i, size_t n)
{
	while (n) {
		struct iovec *v = &i->pieces[i->piece];
		size_t some = MIN(n, v->iov_len);

		v->iov_base = (uint8_t *)v->iov_base + some;
		v->iov_len -= some;
		n -= some;
		if (!v->iov_len)
			i->piece++;
	}
	if (i->piece == i->n_pieces)
		i->piece = i->n_pieces = 0;
}

static bool deliver(struct pump *p)
{
	struct pump_in *i = &p->in;
	ssize_t n;

	do
		n = writev(p->plain, i->pieces + i->piece, (int)(i->n_pieces - i->piece));
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n < 0) {
		leave(p);
		return false;
	}
	delivered(i, (size_t)n);
	return true;
}

/* Was anything delivered?  A server can always send what is for nobody.  Afterwards no whole
 * record is left unopened, unless its data could not be delivered. */
static bool step_in(struct pump *p, bool readable, bool writable)
{
	struct pump_in *i = &p->in;
	bool moved = false;

	if (i->done)
		return false;
	if (!i->n_pieces && !i->eof && readable) {
		fill_in(p);
		writable = true;		/* it is, as a rule */
	}
	for (;;) {
		if (!i->n_pieces)
			open_records(p);
		if (!i->n_pieces || !writable)
			break;
		writable = deliver(p);
		moved |= writable;
	}
	if (i->eof && !i->n_pieces) {
		if (p->ends)
			p->ends(p->userdata);
		shutdown(p->plain, SHUT_WR);
		i->done = moved = true;
	}
	return moved;
}

/* ---- both ---- */

static short wanted_of_plain(const struct pump *p)
{
	return (short)((!p->out.eof && !p->out.len ? POLLIN : 0) |
		       (p->in.n_pieces ? POLLOUT : 0));
}

static short wanted_of_server(const struct pump *p)
{
	return (short)((!p->in.eof && !p->in.n_pieces ? POLLIN : 0) |
		       (p->out.len ? POLLOUT : 0));
}

static bool ending(const struct pump *p)
{
	return p->out.eof || p->in.eof || p->server_hung_up;
}

/* Milliseconds to wait: -1 for ever, 0 when it has taken too long. */
static int patience(const struct pump *p)
{
	uint64_t limit;

	if (!ending(p))
		return -1;
	limit = usec_add(p->progress_usec, p->linger_usec);
	return (int)(usec_sub(limit + USEC_PER_MSEC - 1, now_usec()) / USEC_PER_MSEC);
}

/* A socket that has hung up is always ready; one from which nothing is wanted now must not
 * wake us again and again. */
static struct pollfd watched(int fd, short events, bool hung_up)
{
	return (struct pollfd){ .fd = events || !hung_up ? fd : -1, .events = events };
}

static bool hung_up(const struct pollfd *f)
{
	return f->revents & (POLLHUP | POLLERR | POLLNVAL);
}

static void watch_keys(struct pump *p)
{
	uint64_t used = MAX(p->out.way.sequence, p->in.way.sequence);

	if (!p->key_used || used < p->records || p->out.way.limit == UINT64_MAX)
		return;
	p->key_used(p->userdata);
	p->key_used = NULL;
}

/* One look at both sockets: false when the time is up. */
static bool work(struct pump *p)
{
	struct pollfd f[] = {
		{ .fd = p->plain, .events = wanted_of_plain(p) },
		watched(p->server, wanted_of_server(p), p->server_hung_up),
	};
	bool was_ending = ending(p), moved;
	int timeout = patience(p), n;

	n = poll(f, ARRAY_SIZE(f), timeout);
	if (n == 0)
		return false;
	if (hung_up(&f[0])) {
		leave(p);
		return true;
	}
	p->server_hung_up |= hung_up(&f[1]);
	moved = step_out(p, f[0].revents & ~POLLOUT, f[1].revents & ~POLLIN);
	moved |= step_in(p, f[1].revents & ~POLLOUT, f[0].revents & ~POLLIN);
	watch_keys(p);
	if (ending(p) && (moved || !was_ending))
		p->progress_usec = now_usec();
	return moved || timeout != 0;
}

void pump_run(struct pump *p)
{
	while (!p->out.done || !p->in.done)
		if (!work(p))
			return;
}
