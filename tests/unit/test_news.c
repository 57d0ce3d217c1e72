/* Followers of the news, over a socket that they read when they like. */
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "daemon/followers.h"
#include "daemon/log_journal.h"
#include "daemon/manager.h"
#include "daemon/news.h"
#include "daemon/proto/varlink.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define EVENTS 5000

static void on_call(struct varlink_call *call, struct json_object *params, void *userdata)
{
	const char *name = NULL;

	CHECK(varlink_param_string(call, params, "device", false, &name));
	CHECK_INT(news_follow(userdata, call, name), 0);
}

static const struct varlink_method methods[] = { { "Events", false, on_call } };
static const struct varlink_interface interface = { "x.y", "interface x.y\n", methods, 1 };

static int listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	unlink(path);
	CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	CHECK_INT(listen(fd, 8), 0);
	return fd;
}

/* A client that has asked for the events of DEVICE, a JSON value. */
static int follow(struct manager *m, const char *path, const char *device)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char text[256];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int n = snprintf(text, sizeof(text), "{\"method\":\"x.y.Events\",\"more\":true,"
			 "\"parameters\":{\"device\":%s}}", device);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	CHECK_INT(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	CHECK_INT(write(fd, text, (size_t)n + 1), n + 1);
	for (int i = 0; i < 10; i++)
		sd_event_run(m->event, 0);
	return fd;
}

static void tell(struct manager *m, unsigned i)
{
	struct news n = { .kind = NEWS_OUTAGE, .real_usec = i };

	snprintf(n.name, sizeof(n.name), "%s", i % 2 ? "odd" : "even");
	snprintf(n.device, sizeof(n.device), "/dev/nbd%u", i % 2);
	snprintf(n.message, sizeof(n.message), "event %u", i);
	followers_tell(m, &n);
	sd_event_run(m->event, 0);
}

/* What FD gets: events in order, none twice; with those said to be lost there are EXPECTED. */
static void check(struct manager *m, int fd, unsigned expected, unsigned step)
{
	static char text[1 << 22];
	unsigned long long next = 0, lost, time;
	unsigned n = 0, missed = 0;
	size_t len = 0;

	for (int idle = 0; idle < 20; idle++) {
		struct pollfd p = { fd, POLLIN, 0 };

		while (poll(&p, 1, 0) == 1 && len < sizeof(text) - 65536) {
			len += (size_t)read(fd, text + len, 65536);
			idle = 0;
		}
		sd_event_run(m->event, 0);
	}
	for (char *p = text; p < text + len; p += strlen(p) + 1) {
		const char *t = strstr(p, "\"time\":"), *l = strstr(p, "\"lost\":");

		CHECK(l && sscanf(l, "\"lost\":%llu", &lost) == 1);
		missed += (unsigned)lost;
		if (!t)
			continue;
		CHECK_INT(sscanf(t, "\"time\":%llu", &time), 1);
		CHECK(time >= next && (step == 2 || time == next + lost));
		next = time + step;
		n++;
	}
	CHECK(expected < EVENTS || missed > 0);
	if (step == 1)
		CHECK_INT(n + missed, expected);
	else
		CHECK_INT(n, expected);
}

static void setup(struct manager *m, const char *path)
{
	CHECK(sd_event_new(&m->event) >= 0);
	CHECK_INT(varlink_server_new(m->event, listen_at(path), &interface, m, &m->server), 0);
}

static void teardown(struct manager *m, const char *path)
{
	varlink_server_free(m->server);
	news_free(m);
	sd_event_unref(m->event);
	unlink(path);
}

TEST(a_client_that_reads_slowly_is_told_how_many_events_it_has_missed)
{
	struct manager m = {};
	char path[64];
	int slow, quick, one;

	snprintf(path, sizeof(path), "/tmp/nbdd-news-%d", (int)getpid());
	setup(&m, path);
	slow = follow(&m, path, "null");
	one = follow(&m, path, "\"nbd1\"");
	for (unsigned i = 0; i < 200; i++)
		tell(&m, i);
	check(&m, one, 100, 2);
	close(one);
	for (unsigned i = 200; i < EVENTS; i++)
		tell(&m, i);
	quick = follow(&m, path, "null");	/* sees nothing of what was before */
	check(&m, slow, EVENTS, 1);
	close(quick);
	close(slow);
	for (int i = 0; i < 10; i++)
		sd_event_run(m.event, 0);
	tell(&m, 0);				/* nobody is there any more */
	teardown(&m, path);
}
