#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/bytes.h"
#include "tests/bench/rawlink.h"

#define TALK_MAX	4096
#define HELLO		18		/* lengths of messages */
#define OPTION_REPLY	20

#define OPT_GO		7
#define OPT_STRUCTURED	8
#define REP_ACK		1
#define REP_ERROR	(1u << 31)
#define CMD_DISC	2

/* What came in during the handshake: the bytes from START to END wait to be taken. */
struct talk {
	int fd;
	size_t start, end;
	uint8_t data[TALK_MAX];
};

/* The next N bytes of the server. */
static const uint8_t *hear(struct talk *t, size_t n)
{
	if (n > TALK_MAX - t->start)
		errx(1, "handshake: the server sends more than expected");
	while (t->end - t->start < n) {
		ssize_t got = recv(t->fd, t->data + t->end, TALK_MAX - t->end, 0);

		if (got < 0)
			err(1, "handshake: recv");
		if (!got)
			errx(1, "handshake: the server closed the connection");
		t->end += got;
	}
	t->start += n;
	return t->data + t->start - n;
}

static void say(int fd, const void *p, size_t n)
{
	if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
		err(1, "send");
}

static uint8_t *put_option(uint8_t *p, uint32_t option, uint32_t length)
{
	p = mempcpy(p, "IHAVEOPT", 8);
	p = put32(p, option);
	return put32(p, length);
}

/* Wait for the last reply to OPTION; any other answer than an acknowledgement is an end. */
static void hear_ack(struct talk *t, uint32_t option)
{
	uint32_t type;

	do {
		const uint8_t *p = hear(t, OPTION_REPLY);

		type = get32(p + 12);
		hear(t, get32(p + 16));
	} while (type != REP_ACK && !(type & REP_ERROR));
	if (type != REP_ACK)
		errx(1, "option %u: the server refuses", option);
}

static void shake_hands(int fd, bool simple)
{
	struct talk t = { .fd = fd };
	uint8_t out[64], *p = put32(out, 3);	/* FIXED_NEWSTYLE, NO_ZEROES */

	if (memcmp(hear(&t, HELLO), "NBDMAGICIHAVEOPT", 16))
		errx(1, "no newstyle server");
	if (!simple) {
		p = put_option(p, OPT_STRUCTURED, 0);
		say(fd, out, p - out);
		hear_ack(&t, OPT_STRUCTURED);
		p = out;
	}
	p = put_option(p, OPT_GO, 6);
	p = mempcpy(p, (uint8_t[6]) { 0 }, 6);	/* the default export, no information */
	say(fd, out, p - out);
	hear_ack(&t, OPT_GO);
}

static int dial_unix(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path))
		errx(2, "%s: longer than a socket's path may be", path);
	strcpy(a.sun_path, path);
	if (fd < 0 || connect(fd, (void *)&a, sizeof(a)))
		err(1, "%s", path);
	return fd;
}

static int dial_tcp(const char *address, unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, address, &a.sin_addr) != 1)
		errx(2, "%s: no IPv4 address", address);
	if (fd < 0 || connect(fd, (void *)&a, sizeof(a)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		err(1, "%s:%u", address, port);
	return fd;
}

static int dial(const char *uri)
{
	char address[16], path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
	unsigned port;

	if (sscanf(uri, "nbd+unix:///?socket=%108s", path) == 1)
		return dial_unix(path);
	if (sscanf(uri, "nbd://%15[0-9.]:%5u", address, &port) == 2)
		return dial_tcp(address, port);
	errx(2, "%s: neither nbd+unix:///?socket=PATH nor nbd://ADDRESS:PORT", uri);
}

int rawlink_open(const char *uri, bool simple)
{
	int fd = dial(uri);

	shake_hands(fd, simple);
	return fd;
}

void rawlink_close(int fd)
{
	uint8_t out[REQUEST];

	put_request(out, CMD_DISC, 0, 0, 0);
	say(fd, out, sizeof(out));
	close(fd);
}
