/* nullserver: an NBD server that costs so little that its client is what is measured.
 *
 * Reads give a fixed pattern, all other commands do nothing.  All requests that one read(2)
 * brought are answered by one sendmsg(2).  Only for benchmarks: it trusts its client.
 *
 *	nullserver unix:PATH | tcp:PORT [simple]
 *
 * `simple` refuses structured replies.  Port 0 takes any.  A line "listening WHERE" on
 * stdout tells when and where it is ready; it ends with its parent.
 *
 * The pattern: eight bytes at a multiple of eight hold that offset modulo 1 MiB, in the
 * machine's own byte order. */
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/bytes.h"

#define EXPORT_SIZE	(1ULL << 40)
#define EXPORT_FLAGS	0x0d6d	/* all but read-only, rotational, DF, resize */
#define PATTERN_PERIOD	(1u << 20)
#define READ_MAX	(32u << 20)
#define INPUT_MAX	(32u << 10)
#define REPLIES_MAX	512
#define REPLY_HEADER	32
#define DISCARD_MAX	(1u << 20)

enum phase { CLIENT_FLAGS, OPTION, TRANSMISSION };

struct connection {
	int fd;
	enum phase phase;
	bool no_zeroes, structured, waits_for_room, leaving;
	bool owes_write;		/* reply to a write whose payload is coming in */
	uint64_t write_cookie, payload_left;
	size_t input_length;
	unsigned n_replies, n_iov, iov_sent;
	struct iovec iov[2 * REPLIES_MAX];
	uint8_t header[REPLIES_MAX][REPLY_HEADER];
	uint8_t talk[512];		/* the reply to an option */
	uint8_t input[INPUT_MAX];
};

struct server {
	int listener, epoll;
	bool simple;
	uint8_t *pattern, *discard;
};

static void queue(struct connection *c, const void *base, size_t length)
{
	c->iov[c->n_iov++] = (struct iovec) { (void *)base, length };
}

/* Options ---------------------------------------------------------------------------- */

static uint8_t *option_reply(uint8_t *p, uint32_t option, uint32_t type, uint32_t length)
{
	p = put64(p, 0x3e889045565a9);
	p = put32(p, option);
	p = put32(p, type);
	return put32(p, length);
}

static uint8_t *info_replies(uint8_t *p, uint32_t option)
{
	p = option_reply(p, option, 3, 12);		/* NBD_INFO_EXPORT */
	p = put16(p, 0);
	p = put64(p, EXPORT_SIZE);
	p = put16(p, EXPORT_FLAGS);
	p = option_reply(p, option, 3, 14);		/* NBD_INFO_BLOCK_SIZE */
	p = put16(p, 3);
	p = put32(p, 1);
	p = put32(p, 4096);
	return put32(p, READ_MAX);
}

static uint8_t *meta_replies(uint8_t *p, uint32_t option, const uint8_t *data, size_t length)
{
	static const char name[] = "base:allocation";

	if (!memmem(data, length, name, sizeof(name) - 1))
		return p;
	p = option_reply(p, option, 4, 4 + sizeof(name) - 1);
	p = put32(p, 1);
	return mempcpy(p, name, sizeof(name) - 1);
}

static void answer_option(struct server *s, struct connection *c, uint32_t option,
			  const uint8_t *data, size_t length)
{
	uint8_t *p = c->talk;
	bool known = true;

	switch (option) {
	case 1:						/* EXPORT_NAME */
		p = put64(p, EXPORT_SIZE);
		p = put16(p, EXPORT_FLAGS);
		if (!c->no_zeroes) {
			memset(p, 0, 124);
			p += 124;
		}
		c->phase = TRANSMISSION;
		queue(c, c->talk, p - c->talk);
		return;
	case 2:						/* ABORT */
		c->leaving = true;
		break;
	case 6: case 7:					/* INFO, GO */
		p = info_replies(p, option);
		if (option == 7)
			c->phase = TRANSMISSION;
		break;
	case 8:						/* STRUCTURED_REPLY */
		known = c->structured = !s->simple;
		break;
	case 9: case 10:				/* LIST, SET_META_CONTEXT */
		p = meta_replies(p, option, data, length);
		break;
	default:
		known = false;
	}
	p = option_reply(p, option, known ? 1 : 0x80000001, 0);
	queue(c, c->talk, p - c->talk);
}

/* Commands --------------------------------------------------------------------------- */

static void simple_reply(struct connection *c, uint64_t cookie)
{
	uint8_t *header = c->header[c->n_replies++], *p = header;

	p = put32(p, 0x67446698);
	p = put32(p, 0);
	p = put64(p, cookie);
	queue(c, header, p - header);
}

static void chunk(struct connection *c, uint16_t type, uint64_t cookie, uint32_t length,
		  const void *head, size_t head_length)
{
	uint8_t *header = c->header[c->n_replies++], *p = header;

	p = put32(p, 0x668e33ef);
	p = put16(p, 1);				/* NBD_REPLY_FLAG_DONE */
	p = put16(p, type);
	p = put64(p, cookie);
	p = put32(p, length);
	p = mempcpy(p, head, head_length);
	queue(c, header, p - header);
}

static void answer_read(struct server *s, struct connection *c, uint64_t cookie,
			uint64_t offset, uint32_t length)
{
	uint64_t place = htobe64(offset);

	if (c->structured)
		chunk(c, 1, cookie, length + 8, &place, 8);
	else
		simple_reply(c, cookie);
	queue(c, s->pattern + offset % PATTERN_PERIOD, length);
}

static void answer_status(struct connection *c, uint64_t cookie, uint32_t length)
{
	uint32_t extent[] = { htobe32(1), htobe32(length), 0 };

	chunk(c, 5, cookie, sizeof(extent), extent, sizeof(extent));
}

/* One request at P.  False: the client is done, or talks nonsense. */
static bool answer_request(struct server *s, struct connection *c, const uint8_t *p)
{
	uint64_t cookie = get64(p + 8), offset = get64(p + 16);
	uint32_t length = get32(p + 24);

	if (get32(p) != 0x25609513)
		return false;
	switch (p[7]) {
	case 0:						/* READ */
		if (length > READ_MAX)
			return false;
		answer_read(s, c, cookie, offset, length);
		return true;
	case 1:						/* WRITE */
		c->owes_write = true;
		c->write_cookie = cookie;
		c->payload_left = length;
		return true;
	case 2:						/* DISC */
		return false;
	case 7:						/* BLOCK_STATUS */
		answer_status(c, cookie, length);
		return true;
	default:
		simple_reply(c, cookie);
		return true;
	}
}

/* Input ------------------------------------------------------------------------------ */

/* Take the payload that stands at the head of LEFT bytes.  Returns how much it was. */
static size_t take_payload(struct connection *c, size_t left)
{
	size_t n = left < c->payload_left ? left : c->payload_left;

	c->payload_left -= n;
	if (c->owes_write && !c->payload_left) {
		simple_reply(c, c->write_cookie);
		c->owes_write = false;
	}
	return n;
}

/* Take one message of LEFT bytes at P: its length, 0 when it is not complete, -1 when the
 * connection is to end. */
static ssize_t take_message(struct server *s, struct connection *c, const uint8_t *p,
			    size_t left)
{
	uint32_t length;

	switch (c->phase) {
	case CLIENT_FLAGS:
		if (left < 4)
			return 0;
		c->no_zeroes = get32(p) & 2;
		c->phase = OPTION;
		return 4;
	case OPTION:
		if (left < 16)
			return 0;
		length = get32(p + 12);
		if (length > INPUT_MAX - 16)
			return -1;
		if (left < 16 + length)
			return 0;
		answer_option(s, c, get32(p + 8), p + 16, length);
		return 16 + length;
	default:
		if (left < 28)
			return 0;
		return answer_request(s, c, p) ? 28 : -1;
	}
}

/* Answer what the input holds, as far as there is room for replies. */
static void digest(struct server *s, struct connection *c)
{
	size_t at = 0;
	ssize_t n;

	while (c->n_replies < REPLIES_MAX && !c->leaving) {
		if (c->owes_write) {
			at += take_payload(c, c->input_length - at);
			if (c->owes_write)
				break;
			continue;
		}
		n = take_message(s, c, c->input + at, c->input_length - at);
		if (n <= 0) {
			c->leaving = n < 0;
			break;
		}
		at += n;
	}
	c->input_length -= at;
	memmove(c->input, c->input + at, c->input_length);
}

/* Read once: 1 more may be waiting, 0 all was read, -1 the client is gone. */
static int take_input(struct server *s, struct connection *c)
{
	size_t room = INPUT_MAX - c->input_length;
	size_t payload = c->payload_left < DISCARD_MAX ? c->payload_left : DISCARD_MAX;
	struct iovec iov[] = { { s->discard, payload }, { c->input + c->input_length, room } };
	ssize_t n = readv(c->fd, iov, 2);

	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -1;
	bool more = (size_t)n == payload + room;
	size_t discarded = (size_t)n < payload ? (size_t)n : payload;

	c->payload_left -= discarded;
	c->input_length += n - discarded;
	return more;
}

/* Send the queue: 1 all is out, 0 no room, -1 the client is gone. */
static int send_queue(struct connection *c)
{
	while (c->iov_sent < c->n_iov) {
		struct iovec *iov = c->iov + c->iov_sent;
		struct msghdr m = { .msg_iov = iov, .msg_iovlen = c->n_iov - c->iov_sent };
		ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		for (; c->iov_sent < c->n_iov && (size_t)n >= iov->iov_len; c->iov_sent++)
			n -= iov++->iov_len;
		if (n) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= n;
		}
	}
	c->n_iov = c->iov_sent = c->n_replies = 0;
	return 1;
}

/* Events ----------------------------------------------------------------------------- */

static void want_room(struct server *s, struct connection *c, bool want)
{
	struct epoll_event e = { .events = want ? EPOLLOUT : EPOLLIN, .data.ptr = c };

	if (c->waits_for_room == want)
		return;
	c->waits_for_room = want;
	epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &e);
}

/* Serve C as far as it goes without waiting.  False: it is to be closed. */
static bool serve(struct server *s, struct connection *c)
{
	bool drained = false;

	for (;;) {
		if (c->n_iov) {
			int sent = send_queue(c);

			want_room(s, c, sent == 0);
			if (sent != 1)
				return sent == 0;
		}
		if (c->leaving)
			return false;
		digest(s, c);
		if (c->n_iov || c->leaving)
			continue;
		if (drained)
			return true;
		int more = take_input(s, c);

		if (more < 0)
			return false;
		drained = more == 0;
	}
}

static void welcome(struct server *s)
{
	int one = 1, fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *c;
	struct epoll_event e = { .events = EPOLLIN };
	uint8_t hello[18];

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c = e.data.ptr = calloc(1, sizeof(*c));
	if (!c)
		err(1, "calloc");
	c->fd = fd;
	epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e);
	put16(mempcpy(hello, "NBDMAGICIHAVEOPT", 16), 3);
	if (send(fd, hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello))
		warn("hello");
}

static void part_with(struct connection *c)
{
	close(c->fd);
	free(c);
}

static void run(struct server *s)
{
	struct epoll_event listening = { .events = EPOLLIN }, events[64];

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &listening);
	for (;;) {
		int n = epoll_wait(s->epoll, events, 64, -1);

		for (int i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;

			if (!c)
				welcome(s);
			else if (!serve(s, c))
				part_with(c);
		}
	}
}

static int listen_unix(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path))
		errx(2, "%s: longer than a socket's path may be", path);
	strcpy(a.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (void *)&a, sizeof(a)) || listen(fd, 1024))
		err(1, "%s", path);
	printf("listening %s\n", path);
	return fd;
}

static int listen_tcp(const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(port)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (void *)&a, sizeof(a)) || listen(fd, 1024) ||
	    getsockname(fd, (void *)&a, &length))
		err(1, "port %s", port);
	printf("listening %d\n", ntohs(a.sin_port));
	return fd;
}

static uint8_t *make_pattern(void)
{
	uint8_t *pattern = malloc(READ_MAX + PATTERN_PERIOD);

	if (!pattern)
		err(1, "malloc");
	for (uint64_t at = 0; at < READ_MAX + PATTERN_PERIOD; at += 8) {
		uint64_t word = at % PATTERN_PERIOD;

		memcpy(pattern + at, &word, 8);
	}
	return pattern;
}

int main(int argc, char **argv)
{
	struct server s = { .listener = -1 };

	if (argc >= 2 && !strncmp(argv[1], "unix:", 5))
		s.listener = listen_unix(argv[1] + 5);
	else if (argc >= 2 && !strncmp(argv[1], "tcp:", 4))
		s.listener = listen_tcp(argv[1] + 4);
	if (s.listener < 0 || (argc == 3 && strcmp(argv[2], "simple")) || argc > 3)
		errx(2, "usage: nullserver unix:PATH|tcp:PORT [simple]");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	s.simple = argc == 3;
	s.pattern = make_pattern();
	s.discard = malloc(DISCARD_MAX);
	if (!s.discard)
		err(1, "malloc");
	fflush(stdout);
	run(&s);
}
