/* The relay's work, between a socket pair in the place of the kernel's and a real TLS
 * session in the place of the server. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/pump.h"
#include "tests/unit/tls_pair.h"
#include "tests/unit/unit.h"

#define MIB (1u << 20)

/* What the pump asks of the system, counted. */
static atomic_uint polls;
static __thread unsigned allocations;

int __real_poll(struct pollfd *f, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *f, nfds_t n, int timeout);

int __wrap_poll(struct pollfd *f, nfds_t n, int timeout)
{
	polls++;
	return __real_poll(f, n, timeout);
}

#ifndef __SANITIZE_ADDRESS__
/* In the place of the C library's for every library of this program. */
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
#endif

struct bench {
	struct tls_pair pair;
	struct pump *pump;
	pthread_t thread;
	int kernel;			/* our end of the plain pair */
	int plain;
	/* of the pump's thread */
	struct rusage before, after;
	unsigned allocations;
};

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

static struct bench *begin(struct tls_kind kind)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct nbdd_tls_state s;
	int fds[2];

	CHECK(b);
	tls_pair_make(&b->pair, kind.version, kind.cipher);
	s = tls_pair_state(&b->pair);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	b->kernel = fds[0];
	b->plain = fds[1];
	b->pump = calloc(1, sizeof(*b->pump));
	CHECK(b->pump);
	CHECK_INT(pump_init(b->pump, b->plain, b->pair.client_fd, &s), 0);
	b->pump->linger_usec = 300 * USEC_PER_MSEC;
	return b;
}

static void start(struct bench *b)
{
	CHECK_INT(pthread_create(&b->thread, NULL, run, b), 0);
}

static void wait_end(struct bench *b)
{
	CHECK_INT(pthread_join(b->thread, NULL), 0);
}

static void end(struct bench *b)
{
	pump_deinit(b->pump);
	tls_pair_free(&b->pair);
	close(b->kernel);
	close(b->plain);
	free(b->pump);
	free(b);
}

static void wait_fd(int fd, short events)
{
	struct pollfd f = { .fd = fd, .events = events };

	CHECK(__real_poll(&f, 1, 20000) > 0);
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

/* One end's talk: sends and receives so much, then says that it is done. */
struct talk {
	struct bench *b;
	size_t send, receive, sent, got, piece;
};

static ssize_t kernel_send(struct bench *b, const void *p, size_t len)
{
	ssize_t n = send(b->kernel, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? -errno : n;
}

static ssize_t kernel_receive(struct bench *b, void *p, size_t len)
{
	ssize_t n = recv(b->kernel, p, len, MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

static ssize_t server_send(struct bench *b, const void *p, size_t len)
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

static void *kernel_talks(void *arg)
{
	struct talk *t = arg;

	converse(t, t->b->kernel, false, kernel_send, kernel_receive);
	return NULL;
}

static void *server_talks(void *arg)
{
	struct talk *t = arg;

	converse(t, t->b->pair.server_fd, true, server_send, server_receive);
	return NULL;
}

/* UP bytes from the kernel to the server and DOWN the other way, at the same time. */
static void exchange(struct bench *b, size_t up, size_t down)
{
	struct talk kernel = { b, up, down, .piece = 28 }, server = { b, down, up, .piece = 16 };
	pthread_t thread;

	CHECK_INT(pthread_create(&thread, NULL, server_talks, &server), 0);
	kernel_talks(&kernel);
	CHECK_INT(pthread_join(thread, NULL), 0);
}

static ssize_t server_hears(struct bench *b)
{
	uint8_t byte[16];
	ssize_t n;

	while ((n = server_receive(b, byte, sizeof(byte))) == -EAGAIN)
		wait_fd(b->pair.server_fd, POLLIN);
	return n;
}

static ssize_t kernel_hears(struct bench *b)
{
	uint8_t byte[16];

	wait_fd(b->kernel, POLLIN);
	return recv(b->kernel, byte, sizeof(byte), 0);
}

TEST(bytes_pass_both_ways_at_once_with_each_cipher)
{
	for (size_t k = 0; k < ARRAY_SIZE(tls_kinds); k++) {
		struct bench *b = begin(tls_kinds[k]);

		start(b);
		exchange(b, MIB + 7, MIB + MIB / 2 + 3);
		exchange(b, 1, 1);
		close(b->kernel);
		b->kernel = -1;
		CHECK_INT(server_hears(b), 0);		/* a goodbye, not an end of file */
		gnutls_bye(b->pair.server, GNUTLS_SHUT_WR);
		shutdown(b->pair.server_fd, SHUT_RDWR);
		wait_end(b);
		CHECK_STR(b->pump->why, "given up by the kernel");
		end(b);
	}
}

TEST(steady_work_allocates_nothing_and_faults_in_nothing)
{
	struct bench *b = begin(tls_kinds[0]);

	memset(b->pump->out.buffer, 1, sizeof(b->pump->out.buffer));
	memset(b->pump->in.buffer, 1, sizeof(b->pump->in.buffer));
	start(b);
	exchange(b, 4 * MIB, 4 * MIB);
	close(b->kernel);
	b->kernel = -1;
	shutdown(b->pair.server_fd, SHUT_RDWR);
	wait_end(b);
	CHECK_INT(b->allocations, 0);
	/* Its stack, and code that is met for the first time. */
	CHECK(b->after.ru_minflt - b->before.ru_minflt < 40);
	CHECK_INT(b->after.ru_majflt - b->before.ru_majflt, 0);
	end(b);
}

/* Write until the pump takes no more. */
static size_t stuff(struct bench *b)
{
	static uint8_t bytes[65536];
	size_t total = 0;
	struct pollfd f = { .fd = b->kernel, .events = POLLOUT };

	while (__real_poll(&f, 1, 100) > 0) {
		ssize_t n = kernel_send(b, bytes, sizeof(bytes));

		if (n > 0)
			total += (size_t)n;
	}
	return total;
}

TEST(a_server_that_reads_nothing_does_not_block_the_other_way)
{
	struct bench *b = begin(tls_kinds[1]);
	struct talk server = { b, 4 * MIB, 0, .piece = 4096 },
		    kernel = { b, 0, 4 * MIB };
	pthread_t thread;
	unsigned before;

	start(b);
	CHECK(stuff(b) > 300000);
	before = polls;
	CHECK(stuff(b) == 0);			/* 100 ms in which nothing moves */
	CHECK(polls - before <= 1);
	CHECK_INT(pthread_create(&thread, NULL, server_talks, &server), 0);
	kernel_talks(&kernel);
	CHECK_INT(pthread_join(thread, NULL), 0);
	/* The kernel hangs up while all is full: that is noticed, without a busy loop. */
	before = polls;
	close(b->kernel);
	b->kernel = -1;
	wait_end(b);
	CHECK(polls - before <= 4);
	end(b);
}

TEST(a_kernel_that_reads_nothing_does_not_block_the_other_way)
{
	struct bench *b = begin(tls_kinds[1]);
	struct talk kernel = { b, 4 * MIB, 0, .piece = 4096 },
		    server = { b, 0, 4 * MIB };
	static uint8_t bytes[16384];
	struct pollfd f = { .fd = b->pair.server_fd, .events = POLLOUT };
	pthread_t thread;
	unsigned before;
	size_t sent = 0;

	start(b);
	while (__real_poll(&f, 1, 100) > 0)
		if (server_send(b, bytes, sizeof(bytes)) > 0)
			sent += sizeof(bytes);
	CHECK(sent > 150000);
	before = polls;
	CHECK_INT(__real_poll(&f, 1, 100), 0);
	CHECK(polls - before <= 1);
	CHECK_INT(pthread_create(&thread, NULL, server_talks, &server), 0);
	kernel_talks(&kernel);
	CHECK_INT(pthread_join(thread, NULL), 0);
	/* Now the server goes: what it sent is still delivered, then the end. */
	before = polls;
	shutdown(b->pair.server_fd, SHUT_RDWR);
	while (kernel_hears(b) > 0)
		;
	close(b->kernel);
	b->kernel = -1;
	wait_end(b);
	end(b);
}

TEST(a_half_closed_end_still_receives_everything)
{
	struct bench *b = begin(tls_kinds[2]);
	struct talk server = { b, 4 * MIB, 0, .piece = 1000 }, kernel = { b, 0, 4 * MIB };
	pthread_t thread;

	start(b);
	exchange(b, MIB, 0);
	shutdown(b->kernel, SHUT_WR);
	CHECK_INT(server_hears(b), 0);
	CHECK_INT(pthread_create(&thread, NULL, server_talks, &server), 0);
	kernel_talks(&kernel);
	CHECK_INT(pthread_join(thread, NULL), 0);
	gnutls_bye(b->pair.server, GNUTLS_SHUT_WR);
	CHECK_INT(kernel_hears(b), 0);
	wait_end(b);
	end(b);
}

TEST(a_server_that_ends_first_gets_what_the_kernel_still_sends)
{
	struct bench *b = begin(tls_kinds[3]);

	start(b);
	exchange(b, 100, MIB);
	gnutls_bye(b->pair.server, GNUTLS_SHUT_WR);
	shutdown(b->pair.server_fd, SHUT_WR);
	CHECK_INT(kernel_hears(b), 0);
	exchange(b, MIB, 0);
	shutdown(b->kernel, SHUT_WR);
	CHECK_INT(server_hears(b), 0);
	wait_end(b);
	CHECK_STR(b->pump->why, "closed by the server");
	end(b);
}

TEST(an_end_that_neither_reads_nor_closes_is_not_waited_for_for_ever)
{
	struct bench *b = begin(tls_kinds[0]);

	start(b);
	shutdown(b->pair.server_fd, SHUT_WR);
	CHECK_INT(kernel_hears(b), 0);
	wait_end(b);			/* although the kernel's end stays open */
	CHECK_STR(b->pump->why, "closed by the server");
	end(b);
}

/* The server's bytes as they are, behind some good data; why it ends. */
static const char *after_data(struct bench *b, const void *bytes, size_t len, size_t good)
{
	static char why[100];

	start(b);
	exchange(b, 0, good);
	CHECK_INT(write(b->pair.server_fd, bytes, len), len);
	if (!len)
		shutdown(b->pair.server_fd, SHUT_WR);
	CHECK_INT(kernel_hears(b), 0);
	close(b->kernel);
	b->kernel = -1;
	wait_end(b);
	snprintf(why, sizeof(why), "%s", b->pump->why ? b->pump->why
		 : strerror(b->pump->error));
	end(b);
	return why;
}

TEST(garbage_ends_the_connection_after_what_was_good)
{
	static const uint8_t garbage[500] = "HTTP/1.0 400 Bad request\r\n",
		wrong[500] = { 23, 3, 3, 0, 100 };

	CHECK_STR(after_data(begin(tls_kinds[0]), garbage, sizeof(garbage), MIB),
		  "sent something that is no TLS record");
	CHECK_STR(after_data(begin(tls_kinds[0]), wrong, sizeof(wrong), MIB),
		  "sent a TLS record that is not authentic");
	CHECK_STR(after_data(begin(tls_kinds[3]), "", 0, MIB), "closed by the server");
}

TEST(half_a_record_ends_the_connection_when_the_server_does)
{
	struct bench *b = begin(tls_kinds[0]);

	start(b);
	CHECK_INT(write(b->pair.server_fd, (uint8_t [7]){ 23, 3, 3, 1, 0, 9, 9 }, 7), 7);
	shutdown(b->pair.server_fd, SHUT_WR);
	CHECK_INT(kernel_hears(b), 0);
	wait_end(b);
	CHECK_STR(b->pump->why, "hung up in the middle of a TLS record");
	end(b);
}

TEST(a_key_update_of_gnutls_ends_the_connection_after_what_was_good)
{
	struct bench *b = begin(tls_kinds[0]);

	start(b);
	exchange(b, MIB, MIB);
	CHECK_INT(gnutls_session_key_update(b->pair.server, 0), 0);
	CHECK_INT(kernel_hears(b), 0);
	wait_end(b);
	CHECK_STR(b->pump->why, "changed its TLS key (KeyUpdate)");
	end(b);
}

TEST(late_tickets_and_alerts_of_gnutls_are_told_apart)
{
	struct bench *b = begin(tls_kinds[0]);

	start(b);
	CHECK_INT(gnutls_session_ticket_send(b->pair.server, 2, 0), 0);
	exchange(b, MIB, MIB);
	CHECK_INT(gnutls_alert_send(b->pair.server, GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR),
		  0);
	CHECK_INT(kernel_hears(b), 0);
	wait_end(b);
	CHECK_STR(b->pump->why, "sent the TLS alert 'internal error'");
	end(b);
}

TEST(a_key_at_its_limit_ends_the_connection)
{
	struct bench *b = begin(tls_kinds[0]);

	b->pump->out.way.sequence = RECORD_GCM_LIMIT;
	start(b);
	CHECK_INT(write(b->kernel, "x", 1), 1);
	wait_end(b);
	CHECK(strstr(b->pump->why, "one key"));
	end(b);
}

TEST(keys_and_data_are_wiped)
{
	struct bench *b = begin(tls_kinds[0]);
	static const struct pump none;

	start(b);
	exchange(b, 1000, 1000);
	close(b->kernel);
	b->kernel = -1;
	shutdown(b->pair.server_fd, SHUT_RDWR);
	wait_end(b);
	pump_deinit(b->pump);
	CHECK(memcmp(b->pump, &none, sizeof(none)) == 0);
	end(b);
}
