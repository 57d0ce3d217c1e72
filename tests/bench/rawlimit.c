/* rawlimit: what the loads of nbdbench cost when no library stands between.
 *
 * The least that a client of one thread can do with plain sockets: all requests that may go
 * out are gathered in one send, one receive brings as many replies as there are, and what is
 * missing of a big payload goes straight to its place, together with what follows.  It knows
 * what it asked for and ends at anything else: a yardstick for use with nullserver, not a
 * client.
 *
 * Takes the options of load.h and prints a line of JSON, as nbdbench does; for the forms of
 * the URI see rawlink.h. */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/util/macro.h"
#include "tests/bench/bytes.h"
#include "tests/bench/load.h"
#include "tests/bench/rawlink.h"

#define STAGING		(128u << 10)
#define DIRECT_MIN	(16u << 10)	/* less of a payload is cheaper copied than scattered */
#define IOV_LIMIT	1024u		/* the kernel's UIO_MAXIOV */

#define SIMPLE_REPLY	16		/* lengths of headers */
#define CHUNK_HEADER	20
#define READ_CHUNK	(CHUNK_HEADER + 8)

#define SIMPLE_MAGIC	0x67446698
#define CHUNK_MAGIC	0x668e33ef
#define CHUNK_DONE_DATA	0x00010001	/* flag DONE, type OFFSET_DATA */

/* A place for one operation in flight; its index is the cookie. */
struct slot {
	uint8_t *buffer;
	uint64_t offset;
	bool reads;
};

/* A connection with its operations. */
struct stream {
	const struct options *options;
	const struct mode *mode;
	int fd;
	struct slot *slots;
	unsigned *idle, n_idle;
	uint64_t issued, done, next_offset;

	uint8_t *requests;		/* one after the other, without their payloads */
	struct iovec *iov;
	unsigned n_iov, iov_sent;

	uint8_t *staging;		/* holds STAGED bytes that came and are not dealt with */
	size_t staged;
	struct slot *filling;		/* whose payload comes in: MISSING bytes, to TARGET */
	uint8_t *target;
	size_t missing;
};

/* Requests --------------------------------------------------------------------------- */

static bool pending(const struct stream *s)
{
	return s->iov_sent < s->n_iov;
}

/* Queue LENGTH bytes at BASE; what follows the last entry in memory joins it. */
static void queue(struct stream *s, uint8_t *base, size_t length)
{
	struct iovec *last = s->iov + s->n_iov - 1;

	if (s->n_iov && (uint8_t *)last->iov_base + last->iov_len == base)
		last->iov_len += length;
	else
		s->iov[s->n_iov++] = (struct iovec) { base, length };
}

/* Issue an operation in each idle slot, when all that was issued before is out. */
static void fill(struct stream *s)
{
	static const uint32_t types[] = { [READ] = 0, [WRITE] = 1, [MIX] = 1, [TRIM] = 4,
					  [FLUSH] = 3 };
	const struct mode *m = s->mode;
	uint8_t *at = s->requests;

	if (pending(s))
		return;
	s->n_iov = s->iov_sent = 0;
	while (s->n_idle) {
		unsigned cookie = s->idle[--s->n_idle];
		struct slot *slot = &s->slots[cookie];
		uint32_t type;

		slot->offset = s->next_offset;
		slot->reads = load_reads(m, s->issued++);
		type = slot->reads ? types[READ] : types[m->kind];
		s->next_offset = (s->next_offset + m->size) % PLACES;
		queue(s, at, REQUEST);
		at = put_request(at, type, cookie, slot->offset, m->size);
		if (type == types[WRITE])
			queue(s, slot->buffer, m->size);
	}
}

/* Send what the socket takes now. */
static void send_requests(struct stream *s)
{
	while (pending(s)) {
		struct iovec *iov = s->iov + s->iov_sent;
		struct msghdr m = { .msg_iov = iov,
				    .msg_iovlen = MIN(s->n_iov - s->iov_sent, IOV_LIMIT) };
		int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
		ssize_t n = m.msg_iovlen == 1
			? send(s->fd, iov->iov_base, iov->iov_len, flags)
			: sendmsg(s->fd, &m, flags);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			err(1, "send");
		for (; pending(s) && (size_t)n >= iov->iov_len; s->iov_sent++)
			n -= iov++->iov_len;
		if (n) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= n;
		}
	}
}

/* Replies ---------------------------------------------------------------------------- */

static void finish(struct stream *s, struct slot *slot)
{
	if (s->options->verify && slot->reads)
		load_verify(slot->buffer, slot->offset, s->mode->size);
	s->idle[s->n_idle++] = slot - s->slots;
	s->done++;
}

/* N bytes of the payload have come to their place. */
static void payload_came(struct stream *s, size_t n)
{
	s->target += n;
	s->missing -= n;
	if (!s->missing)
		finish(s, s->filling);
}

static size_t header_length(const uint8_t *p)
{
	return get32(p) == CHUNK_MAGIC ? READ_CHUNK : SIMPLE_REPLY;
}

/* The slot that the whole header at P answers. */
static struct slot *answered(struct stream *s, const uint8_t *p)
{
	uint64_t cookie = get64(p + 8);
	struct slot *slot;
	bool good;

	if (cookie >= s->mode->depth)
		errx(1, "reply with cookie %" PRIu64 ", which was not sent", cookie);
	slot = &s->slots[cookie];
	if (get32(p) == CHUNK_MAGIC)
		good = slot->reads && get32(p + 4) == CHUNK_DONE_DATA &&
			get32(p + 16) == s->mode->size + 8 &&
			get64(p + CHUNK_HEADER) == slot->offset;
	else
		good = get32(p) == SIMPLE_MAGIC && get32(p + 4) == 0;
	if (!good)
		errx(1, "reply that a null server does not send, at offset %" PRIu64,
		     slot->offset);
	return slot;
}

/* Deal with all that is staged, up to a header of which a part is missing. */
static void digest(struct stream *s)
{
	const uint8_t *p = s->staging, *end = p + s->staged;

	for (;;) {
		size_t left = end - p;

		if (s->missing) {
			size_t n = MIN(left, s->missing);

			memcpy(s->target, p, n);
			payload_came(s, n);
			p += n;
			if (s->missing)
				break;
			continue;
		}
		if (left < SIMPLE_REPLY || left < header_length(p))
			break;
		s->filling = answered(s, p);
		p += header_length(p);
		if (s->filling->reads) {
			s->target = s->filling->buffer;
			s->missing = s->mode->size;
		} else {
			finish(s, s->filling);
		}
	}
	s->staged = end - p;
	memmove(s->staging, p, s->staged);
}

/* Receive once and deal with it.  Waits only when all requests are out; false: there was
 * nothing, and there are requests that wait for room. */
static bool receive(struct stream *s)
{
	struct iovec rest = { s->staging + s->staged, STAGING - s->staged };
	struct iovec iov[] = { { s->target, s->missing }, rest };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	bool direct = s->missing >= DIRECT_MIN;
	int flags = pending(s) ? MSG_DONTWAIT : 0;
	ssize_t n = direct ? recvmsg(s->fd, &m, flags)
			   : recv(s->fd, rest.iov_base, rest.iov_len, flags);

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n < 0)
		err(1, "recv");
	if (!n)
		errx(1, "the server closed the connection");
	if (direct) {
		size_t placed = MIN((size_t)n, s->missing);

		payload_came(s, placed);
		n -= placed;
	}
	s->staged += n;
	digest(s);
	return true;
}

/* Streams ---------------------------------------------------------------------------- */

static void stream_open(struct stream *s, const struct options *o, const struct mode *m)
{
	uint8_t *memory = load_buffers(m);

	*s = (struct stream) { .options = o, .mode = m, .fd = rawlink_open(o->uri, o->simple),
			       .slots = calloc(m->depth, sizeof(*s->slots)),
			       .idle = calloc(m->depth, sizeof(*s->idle)),
			       .requests = malloc((size_t)m->depth * REQUEST),
			       .iov = calloc(2 * m->depth, sizeof(*s->iov)),
			       .staging = malloc(STAGING) };
	if (!s->slots || !s->idle || !s->requests || !s->iov || !s->staging)
		err(1, "memory");
	for (unsigned i = 0; i < m->depth; i++) {
		s->slots[i].buffer = memory + (size_t)i * m->size;
		s->idle[s->n_idle++] = m->depth - 1 - i;
	}
}

static void stream_close(struct stream *s)
{
	rawlink_close(s->fd);
	free(s->slots[0].buffer);
	free(s->slots);
	free(s->idle);
	free(s->requests);
	free(s->iov);
	free(s->staging);
}

static void wait_for(const struct stream *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN | POLLOUT };

	if (poll(&p, 1, -1) < 0)
		err(1, "poll");
}

/* One connection, at any depth. */
static void run_one(const struct options *o, const struct mode *m)
{
	struct stream s;
	struct meter start;
	bool over = false;

	stream_open(&s, o, m);
	start = meter_read();
	do {
		over = over || load_enough(o, &start, s.issued);
		if (!over)
			fill(&s);
		send_requests(&s);
		if (s.done < s.issued && !receive(&s))
			wait_for(&s);
	} while (!over || s.done < s.issued);
	meter_report(m->name, &start, s.done, m->size);
	stream_close(&s);
}

/* Many connections in one loop of poll(2). */
static void run_loop(const struct options *o, const struct mode *m)
{
	struct stream *streams = calloc(m->connections, sizeof(*streams));
	struct pollfd *polled = calloc(m->connections, sizeof(*polled));
	uint64_t done = 0, issued = 0;
	struct meter start;
	bool over = false;

	for (unsigned i = 0; i < m->connections; i++)
		stream_open(&streams[i], o, m);
	start = meter_read();
	do {
		over = over || load_enough(o, &start, done);
		issued = 0;
		for (unsigned i = 0; i < m->connections; i++) {
			struct stream *s = &streams[i];

			if (!over)
				fill(s);
			send_requests(s);
			polled[i] = (struct pollfd) {
				.fd = s->fd, .events = POLLIN | (pending(s) ? POLLOUT : 0) };
			issued += s->issued;
		}
		if (done < issued && poll(polled, m->connections, -1) < 0)
			err(1, "poll");
		done = 0;
		for (unsigned i = 0; i < m->connections; i++) {
			if (polled[i].revents & ~POLLOUT)
				receive(&streams[i]);
			done += streams[i].done;
		}
	} while (!over || done < issued);
	meter_report(m->name, &start, done, m->size);
	for (unsigned i = 0; i < m->connections; i++)
		stream_close(&streams[i]);
	free(streams);
	free(polled);
}

static void run_connect(const struct options *o, const struct mode *m)
{
	struct meter start = meter_read();
	uint64_t ops = 0;

	for (; !load_enough(o, &start, ops); ops++)
		rawlink_close(rawlink_open(o->uri, o->simple));
	meter_report(m->name, &start, ops, 0);
}

int main(int argc, char **argv)
{
	/* How completions are made known is a matter of libraries. */
	static const load_runner runners[N_WAYS] = {
		[SYNC] = run_one, [POLL] = run_one, [PEEK] = run_one, [LOOP] = run_loop,
		[CONNECT] = run_connect,
	};

	return load_main(argc, argv, runners);
}
