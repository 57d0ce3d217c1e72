/* The parts of the daemon that need no kernel. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "daemon/backoff.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/patience.h"
#include "daemon/sample.h"
#include "daemon/target.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define MSEC USEC_PER_MSEC
#define STILL_USEC (500 * MSEC)
#define LIMIT_USEC (1000 * MSEC)

TEST(backoff_doubles_up_to_its_maximum)
{
	struct backoff b = { .first_usec = 100 * MSEC, .max_usec = 1000 * MSEC };
	static const unsigned expected[] = { 100, 200, 400, 800, 1000, 1000 };

	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		CHECK_INT(backoff_next(&b, USEC_INFINITY, 0), expected[i] * MSEC);
	backoff_reset(&b);
	CHECK_INT(backoff_next(&b, USEC_INFINITY, 0), 100 * MSEC);
}

TEST(backoff_jitter_takes_off_at_most_a_quarter)
{
	struct backoff b = { .first_usec = 4000, .max_usec = 4000 };

	CHECK_INT(backoff_next(&b, USEC_INFINITY, 0), 4000);
	CHECK(backoff_next(&b, USEC_INFINITY, UINT32_MAX) >= 3000);
	CHECK(backoff_next(&b, USEC_INFINITY, UINT32_MAX) <= 3001);
}

TEST(backoff_heeds_the_ceiling_of_one_pause)
{
	struct backoff b = { .first_usec = 100, .max_usec = 10000 };

	for (unsigned i = 0; i < 10; i++)
		CHECK(backoff_next(&b, 500, 0) <= 500);
	CHECK_INT(backoff_next(&b, USEC_INFINITY, 0), 10000);
}

TEST(backoff_does_not_overflow_after_years)
{
	struct backoff b = { .first_usec = USEC_PER_SEC, .max_usec = USEC_INFINITY - 1,
			     .failures = UINT32_MAX - 1 };

	CHECK(backoff_next(&b, USEC_INFINITY - 1, 7) > USEC_PER_SEC);
}

TEST(only_names_are_worth_resolving_again)
{
	static const struct {
		const char *host;
		sa_family_t family;
		bool name;
	} hosts[] = {
		{ "server.example", AF_INET6, true }, { "10", AF_INET, true },
		{ "192.0.2.1", AF_INET, false }, { "2001:db8::1", AF_INET6, false },
		{ "/run/nbd.sock", AF_UNIX, false }, { "vsock:2:10809", AF_VSOCK, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		struct nbdd_address a = { .addr.ss_family = hosts[i].family };
		struct target t = { .n_servers = 1, .servers[0].addresses = &a,
				    .servers[0].n_addresses = 1 };

		snprintf(t.servers[0].host, sizeof(t.servers[0].host), "%s",
			 hosts[i].host);
		CHECK_INT(target_has_names(&t), hosts[i].name);
	}
}

TEST(samples_lie_within_the_device_and_do_not_overlap)
{
	static const uint64_t sizes[] = { 512, 4096, 4608, 40960, 65536 + 512, 1 << 20,
					  UINT64_C(1) << 40, INT64_MAX - 511 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t end = 0, size = sizes[i] - sizes[i] % 512;
		struct samples s;

		samples_choose(&s, size, 512);
		CHECK(s.n > 0);
		CHECK_INT(s.list[0].offset, 0);
		for (uint32_t n = 0; n < s.n; n++) {
			CHECK(s.list[n].offset >= end);
			CHECK_INT(s.list[n].offset % 512, 0);
			end = s.list[n].offset + s.list[n].len;
		}
		CHECK(end <= size);
	}
	CHECK(SAMPLES_MAX >= 12 + 1 + 16 + 3);
}

static struct digests digests_of(const char *text)
{
	struct digests d = { .n = (uint32_t)strlen(text) };

	for (uint32_t i = 0; i < d.n; i++)
		memset(d.list[i], text[i], SAMPLE_DIGEST);
	return d;
}

TEST(a_block_differs_only_if_nobody_wrote_it_meanwhile)
{
	struct digests before = digests_of("aaaa"), theirs = digests_of("abab"),
		       after = digests_of("abcc");
	struct samples s = { .n = 4, .list = { { 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 } } };
	struct comparison c;

	samples_compare(&s, &before, &theirs, &after, &c);
	CHECK_INT(c.different, 0);
	CHECK_INT(c.changing, 1);
	CHECK_INT(s.n, 1);
	CHECK_INT(s.list[0].offset, 3);
	before = digests_of("a");
	theirs = digests_of("b");
	samples_compare(&s, &before, &theirs, &before, &c);
	CHECK_INT(c.different, 1);
	CHECK_INT(c.first_different, 3);
	/* What was not read is not the same. */
	s.n = 1;
	samples_compare(&s, &(struct digests){}, &(struct digests){}, &(struct digests){}, &c);
	CHECK_INT(s.n, 1);
	CHECK_INT(c.changing, 1);
}

TEST(a_label_of_a_metric_is_escaped)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	metrics_label(out, "a\\b\"c\nd\xff\xc3\xa9");
	fclose(out);
	CHECK_STR(text, "a\\\\b\\\"c\\\\x0ad\\\\xff\xc3\xa9");
	free(text);
}

/* Lines that a full pipe does not take come later, in order, and the rest is counted. */
/* Returns when the child that works like that is waited for no longer. */
static void wait_for(struct patience *p, void (*work)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			work();
	}
	CHECK_INT(patience_begin(p, pid, STILL_USEC, LIMIT_USEC), 0);
	while (patience_left(p))
		usleep(10000);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void compute(void)
{
}

static void hang(void)
{
	pause();
}

TEST(who_works_is_waited_for_to_the_limit_and_who_hangs_is_not)
{
	struct patience p;

	wait_for(&p, compute);
	CHECK(p.moved_usec > p.began_usec + STILL_USEC);
	CHECK(now_usec() >= p.began_usec + LIMIT_USEC);
	wait_for(&p, hang);
	CHECK(p.moved_usec < p.began_usec + STILL_USEC);
}

TEST(a_log_that_nobody_reads_blocks_nobody)
{
	static char text[1 << 19];
	int pair[2], saved = dup(STDERR_FILENO);
	unsigned n = 0, dropped = 0;
	size_t len = 0;
	char line[64];
	sd_event *e;

	CHECK_INT(pipe(pair), 0);
	dup2(pair[1], STDERR_FILENO);
	close(pair[1]);
	CHECK(sd_event_new(&e) >= 0);
	log_keep(e);
	for (unsigned i = 0; i < 8000; i++)
		log_line(LOG_ERR, "line %u of the log", i);
	for (int i = 0; i < 1000 && len < sizeof(text) - 65536; i++) {
		struct pollfd p = { .fd = pair[0], .events = POLLIN };

		while (poll(&p, 1, 0) == 1 && len < sizeof(text) - 65536)
			len += (size_t)read(pair[0], text + len, 65536);
		sd_event_run(e, 0);
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	for (char *p = text; *p; p = strchr(p, '\n') + 1) {
		snprintf(line, sizeof(line), "nbdd: line %u of the log\n", n);
		if (strncmp(p, line, strlen(line)) == 0)
			n++;
		else
			CHECK_INT(sscanf(p, "nbdd: %u log lines were dropped", &dropped), 1);
	}
	CHECK(n > 100000 / sizeof("nbdd: line 1000 of the log") && n < 8000);
	CHECK_INT(n + dropped, 8000);
	sd_event_unref(e);
	close(pair[0]);
}
