/* What a relay tells nbdd, and what one would that a server has taken over. */
#include <poll.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "daemon/device.h"
#include "daemon/link.h"
#include "daemon/manager.h"
#include "daemon/relay.h"
#include "daemon/spawner.h"
#include "lib/util/fd.h"
#include "tests/unit/unit.h"

int __wrap_spawner_kill(struct spawner *s, int pidfd);

static unsigned killed;

int __wrap_spawner_kill(struct spawner *s, int pidfd)
{
	killed++;
	return 0;
}

/* A link that is alive; the kernel's end of its pair, the relay's end of its messages, and the
 * server's. */
struct relayed {
	struct manager m;
	struct device d;
	struct link *l;
	int kernel, relay, server;
};

static void setup(struct relayed *r)
{
	int data[2], news[2], server[2], on = 1;

	*r = (struct relayed){};
	killed = 0;
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, data), 0);
	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, news), 0);
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, server), 0);
	CHECK_INT(setsockopt(news[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	CHECK(sd_event_new(&r->m.event) >= 0);
	r->d.manager = &r->m;
	r->d.index = -1;
	r->l = &r->d.links[0];
	*r->l = (struct link){
		.device = &r->d, .fd = data[0],
		.relay = { .there = true, .pid = getpid(), .pidfd = dup(data[0]),
			   .sock = news[0], .server_fd = server[0] } };
	r->kernel = data[1];
	r->relay = news[1];
	r->server = server[1];
	link_relay_watch(r->l);
}

static void teardown(struct relayed *r)
{
	sd_event_source_disable_unref(r->l->relay.news);
	close(r->l->relay.pidfd);
	close(r->l->relay.sock);
	close(r->l->relay.server_fd);
	close(r->server);
	close(r->l->fd);
	close(r->kernel);
	close(r->relay);
	sd_event_unref(r->m.event);
}

static void tell(struct relayed *r, uint32_t news, size_t len, size_t n_fds)
{
	struct relay_message m = { .news = news, .why = "because" };
	int fds[FD_PASS_MAX];

	for (size_t i = 0; i < n_fds; i++)
		fds[i] = r->relay;
	CHECK_INT(fd_send(r->relay, &m, len, fds, n_fds), 0);
	while (sd_event_run(r->m.event, 0) > 0)
		;
}

static bool is_cut(const struct relayed *r)
{
	struct pollfd p = { .fd = r->kernel, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 1;
}

TEST(a_relay_is_listened_to_until_it_has_ended)
{
	struct relayed r;

	setup(&r);
	tell(&r, RELAY_KEY_USED, sizeof(struct relay_message), 0);
	CHECK(is_cut(&r) && r.l->cut_why && r.l->relay.news);
	tell(&r, RELAY_ENDS, sizeof(struct relay_message), 0);
	CHECK_STR(r.l->relay.why, "because");
	CHECK(r.l->relay.news && !killed);
	r.relay = fd_close(r.relay);
	while (sd_event_run(r.m.event, 0) > 0)
		;
	CHECK(!r.l->relay.news && !killed);
	teardown(&r);
}

/* A relay that the machine lets wait holds what an old write may be in. */
TEST(a_link_that_is_cut_sends_nothing_more_to_its_server_whatever_its_relay_does)
{
	struct relayed r;
	int relay;

	setup(&r);
	relay = dup(r.l->relay.server_fd);
	CHECK_INT(send(relay, "x", 1, MSG_NOSIGNAL), 1);
	CHECK_INT(link_cut(r.l, "because"), 0);
	CHECK_INT(send(relay, "x", 1, MSG_NOSIGNAL), -1);
	CHECK(is_cut(&r));
	close(relay);
	teardown(&r);
}

TEST(a_relay_that_tells_what_none_does_is_killed_and_its_link_cut)
{
	static const struct {
		uint32_t news;
		size_t len, n_fds;
		bool before;		/* it ends by its own account first */
	} junk[] = {
		{ RELAY_KEY_USED, 1, 0 },
		{ RELAY_KEY_USED, sizeof(struct relay_message) - 1, 0 },
		{ RELAY_KEY_USED, sizeof(struct relay_message), 1 },
		{ RELAY_KEY_USED, sizeof(struct relay_message), FD_PASS_MAX },
		{ 0, sizeof(struct relay_message), 0 },
		{ RELAY_KEY_USED + 1, sizeof(struct relay_message), 0 },
		{ UINT32_MAX, sizeof(struct relay_message), 0 },
		{ RELAY_ENDS, sizeof(struct relay_message), 0, true },
		{ RELAY_ENDS, sizeof(struct relay_message), FD_PASS_MAX, true },
	};
	struct relayed r;

	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
		setup(&r);
		if (junk[i].before)
			tell(&r, RELAY_ENDS, sizeof(struct relay_message), 0);
		CHECK(!is_cut(&r) && r.l->relay.news);
		tell(&r, junk[i].news, junk[i].len, junk[i].n_fds);
		CHECK(is_cut(&r) && r.l->cut_why);
		CHECK_INT(killed, 1);
		/* What else is in its socket is no reason to stop at, or to spin. */
		for (int more = 0; more < 5; more++)
			tell(&r, UINT32_MAX, 1, 0);
		CHECK_INT(killed, 1);
		CHECK(link_relay_why(r.l));
		teardown(&r);
	}
}
