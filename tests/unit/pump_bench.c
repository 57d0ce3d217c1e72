#include "tests/unit/pump_bench.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/util/fd.h"

#include "tests/unit/unit.h"

atomic_uint polls;
atomic_int send_error;
static __thread unsigned allocations;

int __real_poll(struct pollfd *f, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *f, nfds_t n, int timeout);

int __wrap_poll(struct pollfd *f, nfds_t n, int timeout)
{
	polls++;
	return __real_poll(f, n, timeout);
}

ssize_t __real_send(int fd, const void *p, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *p, size_t len, int flags);

ssize_t __wrap_send(int fd, const void *p, size_t len, int flags)
{
	errno = send_error;
	return errno ? -1 : __real_send(fd, p, len, flags);
}

#ifndef __SANITIZE_ADDRESS__
/* In the place of the C library's for every library of this program. */
#pragma GCC visibility push(default)
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

void *malloc(size_t size)
{
	allocations++;
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	allocations++;
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	allocations++;
	return __libc_realloc(p, size);
}
#pragma GCC visibility pop
#endif

static void *run(void *arg)
{
	struct bench *b = arg;

	getrusage(RUSAGE_THREAD, &b->before);
	allocations = 0;
	pump_run(b->pump);
	b->allocations = allocations;
	getrusage(RUSAGE_THREAD, &b->after);
	/* As the end of the relay's process does. */
	shutdown(b->plain, SHUT_RDWR);
	shutdown(b->pair.client_fd, SHUT_RDWR);
	return NULL;
}

struct bench *begin(struct tls_kind kind)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct nbdd_tls_state s;
	int fds[2];

	CHECK(b);
	tls_pair_make(&b->pair, kind.version, kind.cipher);
	s = tls_pair_state(&b->pair);
#ifndef __SANITIZE_ADDRESS__
	CHECK(allocations > 100);	/* those of gnutls are seen */
#endif
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	b->kernel = fds[0];
	b->plain = fds[1];
	CHECK_INT(fd_set_nonblock(b->plain, true), 0);
	b->pump = calloc(1, sizeof(*b->pump));
	CHECK(b->pump);
	CHECK_INT(pump_init(b->pump, b->plain, b->pair.client_fd, &s), 0);
	b->pump->linger_usec = 300 * USEC_PER_MSEC;
	return b;
}

void start(struct bench *b)
{
	CHECK_INT(pthread_create(&b->thread, NULL, run, b), 0);
}

void wait_end(struct bench *b)
{
	CHECK_INT(pthread_join(b->thread, NULL), 0);
}

void end(struct bench *b)
{
	pump_deinit(b->pump);
	tls_pair_free(&b->pair);
	close(b->kernel);
	close(b->plain);
	free(b->pump);
	free(b);
}

bool ready(int fd, short events, int msec)
{
	struct pollfd f = { .fd = fd, .events = events };

	return __real_poll(&f, 1, msec) > 0;
}

void wait_fd(int fd, short events)
{
	CHECK(ready(fd, events, 20000));
}

/* The Nth byte of a stream, whose period divides no buffer. */
static uint8_t byte_at(size_t n)
{
	return (uint8_t)(n % 251 + n / 65521);
}

static void make(uint8_t *p, size_t from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = byte_at(from + i);
}

static void check(const uint8_t *p, size_t from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != byte_at(from + i))
			FAIL("byte %zu is wrong", from + i);
}

ssize_t kernel_send(struct bench *b, const void *p, size_t len)
{
	ssize_t n = send(b->kernel, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? -errno : n;
}

static ssize_t kernel_receive(struct bench *b, void *p, size_t len)
{
	ssize_t n = recv(b->kernel, p, len, MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

ssize_t server_send(struct bench *b, const void *p, size_t len)
{
	ssize_t n = gnutls_record_send(b->pair.server, p, len);

	return n == GNUTLS_E_AGAIN ? -EAGAIN : n;
}

static ssize_t server_receive(struct bench *b, void *p, size_t len)
{
	ssize_t n = gnutls_record_recv(b->pair.server, p, len);

	return n == GNUTLS_E_AGAIN ? -EAGAIN : n;
}

static void converse(struct talk *t, int fd, bool again,
		     ssize_t (*send_some)(struct bench *b, const void *p, size_t len),
		     ssize_t (*receive_some)(struct bench *b, void *p, size_t len))
{
	static __thread uint8_t out[300000], in[300000];
	size_t len = 0;

	while (t->sent < t->send || t->got < t->receive) {
		short events = t->got < t->receive ? POLLIN : 0;
		ssize_t n;

		if (t->sent < t->send) {
			/* gnutls wants the same again after EAGAIN. */
			if (!again || !len)
				len = MIN(t->send - t->sent, t->piece);
			make(out, t->sent, len);
			n = send_some(t->b, out, len);
			CHECK(n > 0 || n == -EAGAIN);
			if (n > 0) {
				t->sent += (size_t)n;
				len = 0;
				t->piece = t->piece * 7 % 262147 + 1;
			} else {
				events |= POLLOUT;
			}
		}
		n = t->got < t->receive ? receive_some(t->b, in, sizeof(in)) : -EAGAIN;
		CHECK(n > 0 || n == -EAGAIN);
		if (n > 0) {
			check(in, t->got, (size_t)n);
			t->got += (size_t)n;
		} else if (events & POLLOUT || (t->sent == t->send && t->got < t->receive)) {
			wait_fd(fd, events);
		}
	}
}

void *kernel_talks(void *arg)
{
	struct talk *t = arg;

	converse(t, t->b->kernel, false, kernel_send, kernel_receive);
	return NULL;
}

void *server_talks(void *arg)
{
	struct talk *t = arg;

	converse(t, t->b->pair.server_fd, true, server_send, server_receive);
	return NULL;
}

void exchange(struct bench *b, size_t up, size_t down)
{
	struct talk kernel = { b, up, down, .piece = 28 }, server = { b, down, up, .piece = 16 };
	pthread_t thread;

	CHECK_INT(pthread_create(&thread, NULL, server_talks, &server), 0);
	kernel_talks(&kernel);
	CHECK_INT(pthread_join(thread, NULL), 0);
}

ssize_t server_hears(struct bench *b)
{
	uint8_t byte[16];
	ssize_t n;

	while ((n = server_receive(b, byte, sizeof(byte))) == -EAGAIN)
		wait_fd(b->pair.server_fd, POLLIN);
	return n;
}

ssize_t kernel_hears(struct bench *b)
{
	uint8_t byte[16];

	wait_fd(b->kernel, POLLIN);
	return recv(b->kernel, byte, sizeof(byte), 0);
}
