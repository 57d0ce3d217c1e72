/* What the relay's pump does with bytes, ends and nonsense of either side. */
#include <endian.h>
#include <errno.h>
#include <linux/nbd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/util/fd.h"

#include "tests/unit/pump_bench.h"
#include "tests/unit/unit.h"

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

	while (ready(b->kernel, POLLOUT, 100)) {
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
	pthread_t thread;
	unsigned before;
	size_t sent = 0;

	start(b);
	while (ready(b->pair.server_fd, POLLOUT, 100))
		if (server_send(b, bytes, sizeof(bytes)) > 0)
			sent += sizeof(bytes);
	CHECK(sent > 150000);
	before = polls;
	CHECK(!ready(b->pair.server_fd, POLLOUT, 100));
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
	CHECK_STR(b->pump->why, "closed the connection");
	end(b);
}

TEST(an_end_that_neither_reads_nor_closes_is_not_waited_for_for_ever)
{
	struct bench *b = begin(tls_kinds[0]);

	start(b);
	shutdown(b->pair.server_fd, SHUT_WR);
	CHECK_INT(kernel_hears(b), 0);
	wait_end(b);			/* although the kernel's end stays open */
	CHECK_STR(b->pump->why, "closed the connection");
	end(b);
}

/* Records that hold nothing are no progress, though there is always another one to read. */
TEST(a_server_that_never_stops_is_not_waited_for_for_ever)
{
	struct bench *b = begin(tls_kinds[0]);
	ssize_t n = 0;

	signal(SIGPIPE, SIG_IGN);
	start(b);
	shutdown(b->kernel, SHUT_WR);
	CHECK_INT(server_hears(b), 0);
	while (n >= 0 || n == GNUTLS_E_AGAIN) {
		wait_fd(b->pair.server_fd, POLLOUT);
		n = gnutls_record_send2(b->pair.server, "", 0, 1, 0);
	}
	wait_end(b);
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
	CHECK_STR(after_data(begin(tls_kinds[3]), "", 0, MIB), "closed the connection");
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
	b->pump->linger_usec = 60 * USEC_PER_MINUTE;
	start(b);
	CHECK_INT(write(b->kernel, "x", 1), 1);
	wait_end(b);			/* at once: what comes now could go nowhere */
	CHECK(strstr(b->pump->why, "one key"));
	CHECK_INT(kernel_hears(b), 0);
	end(b);
}

TEST(a_send_that_fails_ends_the_connection_at_once)
{
	struct bench *b = begin(tls_kinds[0]);

	b->pump->linger_usec = 60 * USEC_PER_MINUTE;
	send_error = ENOBUFS;
	start(b);
	CHECK_INT(write(b->kernel, "x", 1), 1);
	wait_end(b);
	CHECK_INT(b->pump->error, ENOBUFS);
	CHECK_INT(kernel_hears(b), 0);
	end(b);
}

static void count(void *userdata)
{
	++*(unsigned *)userdata;
}

TEST(a_key_that_was_used_enough_is_told_of_once)
{
	for (size_t k = 0; k < ARRAY_SIZE(tls_kinds); k++) {
		struct bench *b = begin(tls_kinds[k]);
		unsigned told = 0;

		b->pump->records = b->pump->in.way.sequence + 50;
		b->pump->key_used = count;
		b->pump->userdata = &told;
		start(b);
		exchange(b, 16384, 40 * 16384);
		CHECK_INT(told, 0);
		exchange(b, 16384, 40 * 16384);
		close(b->kernel);
		b->kernel = -1;
		shutdown(b->pair.server_fd, SHUT_RDWR);
		wait_end(b);
		CHECK_INT(told, tls_kinds[k].cipher != NBDD_TLS_CHACHA20_POLY1305);
		end(b);
	}
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

/* Without TLS, and in no thread: the first of each pair is the other side's. */
struct raw {
	struct pump *pump;
	int kernel[2], server[2];
};

static void raw_begin(struct raw *r)
{
	static const struct nbdd_tls_state none;

	r->pump = calloc(1, sizeof(*r->pump));
	CHECK(r->pump);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, r->kernel), 0);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, r->server), 0);
	CHECK_INT(fd_set_nonblock(r->kernel[1], true), 0);
	CHECK_INT(pump_init(r->pump, r->kernel[1], r->server[1], &none), 0);
}

static void raw_end(struct raw *r)
{
	pump_deinit(r->pump);
	for (int i = 0; i < 2; i++) {
		close(r->kernel[i]);
		close(r->server[i]);
	}
	free(r->pump);
}

TEST(without_tls_bytes_pass_as_they_are)
{
	static uint8_t bytes[100000], back[sizeof(bytes) + 1];
	struct raw r;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 >> 3);
	raw_begin(&r);
	CHECK_INT(write(r.kernel[0], bytes, sizeof(bytes)), sizeof(bytes));
	CHECK_INT(write(r.server[0], bytes, 77), 77);
	shutdown(r.server[0], SHUT_WR);
	shutdown(r.kernel[0], SHUT_WR);
	pump_run(r.pump);
	shutdown(r.server[1], SHUT_RDWR);
	CHECK_INT(recv(r.server[0], back, sizeof(back), MSG_WAITALL), sizeof(bytes));
	CHECK(memcmp(back, bytes, sizeof(bytes)) == 0);
	CHECK_INT(recv(r.kernel[0], back, sizeof(back), MSG_WAITALL), 77);
	CHECK(memcmp(back, bytes, 77) == 0);
	CHECK(r.pump->why);
	raw_end(&r);
}

/* What stands in the pair when the kernel gives it up, and how much of it the server gets. */
static const struct {
	size_t requests;		/* before a last one of this type: */
	uint8_t type;
	size_t got;
} given_up[] = {
	{ 0, NBD_CMD_DISC, sizeof(struct nbd_request) },
	{ 0, NBD_CMD_TRIM, 0 },
	{ 1, NBD_CMD_DISC, 0 },
	{ 100, NBD_CMD_TRIM, 0 },
};

static void give_up(int kernel, size_t k)
{
	for (size_t i = 0; i <= given_up[k].requests; i++) {
		bool last = i == given_up[k].requests;
		const struct nbd_request r = {
			.magic = htobe32(NBD_REQUEST_MAGIC),
			.type = htobe32(last ? given_up[k].type : NBD_CMD_TRIM) };

		CHECK_INT(send(kernel, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL), sizeof(r));
	}
	shutdown(kernel, SHUT_RDWR);
}

TEST(a_connection_that_was_given_up_brings_no_request_but_a_lone_goodbye)
{
	uint8_t bytes[100];

	for (size_t i = 0; i < 2 * ARRAY_SIZE(given_up); i++) {
		struct bench *b = begin(tls_kinds[i % 2 ? 0 : 3]);
		size_t got = 0;

		give_up(b->kernel, i / 2);
		start(b);
		wait_end(b);
		for (ssize_t n; (n = gnutls_record_recv(b->pair.server, bytes, 1)) != 0; got++)
			CHECK_INT(n, 1);
		CHECK_INT(got, given_up[i / 2].got);
		CHECK_STR(b->pump->why, "given up by the kernel");
		end(b);
	}
	for (size_t i = 0; i < ARRAY_SIZE(given_up); i++) {
		struct raw r;

		raw_begin(&r);
		give_up(r.kernel[0], i);
		pump_run(r.pump);
		shutdown(r.server[1], SHUT_RDWR);
		CHECK_INT(read(r.server[0], bytes, sizeof(bytes)), given_up[i].got);
		raw_end(&r);
	}
}

/* The server reads on, but what the pump holds comes no more. */
TEST(a_connection_that_was_given_up_brings_no_rest_of_what_it_held)
{
	struct bench *b = begin(tls_kinds[1]);
	static uint8_t bytes[65536];
	int before, got = 0;

	start(b);
	CHECK(stuff(b) > 300000);
	CHECK_INT(ioctl(b->pair.server_fd, FIONREAD, &before), 0);
	shutdown(b->kernel, SHUT_RDWR);
	for (ssize_t n = 1; n > 0; got += n) {
		wait_fd(b->pair.server_fd, POLLIN);
		n = read(b->pair.server_fd, bytes, sizeof(bytes));
		CHECK(n >= 0);
	}
	wait_end(b);
	CHECK_INT(got, before);
	end(b);
}
