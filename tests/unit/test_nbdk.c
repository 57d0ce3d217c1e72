/* netlink/ as far as it goes without the driver: in a network namespace of its own. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/util/macro.h"
#include "netlink/nbdk.h"
#include "tests/unit/unit.h"

#define TOLD_MAX 4096

static void in_own_network(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		FAIL("unshare: %s (root only)", strerror(errno));
}

static void shell(const char *command)
{
	if (system(command) != 0)
		FAIL("%s failed", command);
}

static void collect(const char *what, void *userdata)
{
	char *told = userdata;
	size_t len = strlen(told);

	snprintf(told + len, TOLD_MAX - len, "%s\n", what);
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* Requests go nowhere: as if another process had read their answers. */
static bool lost;

ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __real_send(int fd, const void *buf, size_t len, int flags);

ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
	return lost ? (ssize_t)len : __real_send(fd, buf, len, flags);
}

TEST(an_answer_that_is_lost_is_not_waited_for_without_end)
{
	struct nbdk *k = NULL;

	lost = true;
	CHECK_INT(nbdk_open(&k), -ETIMEDOUT);
	CHECK(!k);
}

TEST(there_is_no_driver_in_another_network_namespace)
{
	struct nbdk_events *e = NULL;
	struct nbdk *k = NULL;

	in_own_network();
	CHECK_INT(nbdk_open(&k), -ENOENT);
	CHECK_INT(nbdk_events_open(&e), -ENOENT);
	CHECK(!k && !e);
	nbdk_close(NULL);
	nbdk_events_close(NULL);
	nbdk_net_close(NULL);
}

TEST(a_link_is_told_when_it_comes_up_and_not_when_it_is_announced_again)
{
	char told[TOLD_MAX] = "";
	struct nbdk_net *n;

	in_own_network();
	CHECK_INT(nbdk_net_open(&n), 0);
	CHECK_INT(nbdk_net_read(n, collect, told), 0);
	CHECK_STR(told, "");
	shell("ip link set lo mtu 9000; ip link set lo up; ip link set lo mtu 9001");
	CHECK(readable(nbdk_net_fd(n)));
	CHECK_INT(nbdk_net_read(n, collect, told), 0);
	CHECK(!strncmp(told, "lo: up\n", 7) && !strstr(told + 7, "lo: up"));
	CHECK(!readable(nbdk_net_fd(n)));
	told[0] = '\0';
	shell("ip link set lo down; ip link set lo up");
	CHECK_INT(nbdk_net_read(n, collect, told), 0);
	CHECK(strstr(told, "lo: up\n"));
	nbdk_net_close(n);
}

TEST(addresses_and_routes_are_told_in_words)
{
	char told[TOLD_MAX] = "";
	struct nbdk_net *n;

	in_own_network();
	shell("ip link set lo up");
	CHECK_INT(nbdk_net_open(&n), 0);
	shell("ip addr add 192.0.2.1/32 dev lo; ip route add 198.51.100.0/24 dev lo;"
	      "ip route add default dev lo; ip route add blackhole 203.0.113.0/24;"
	      "ip route add 10.0.0.0/8 nexthop dev lo nexthop dev lo");
	CHECK_INT(nbdk_net_read(n, collect, told), 0);
	CHECK_STR(told, "lo: address 192.0.2.1\nlo: route to 198.51.100.0/24\n"
			"lo: default route\nseveral interfaces: route to 10.0.0.0/8\n");
	nbdk_net_close(n);
}

TEST(what_was_lost_counts_as_a_change_of_the_network)
{
	char told[TOLD_MAX] = "";
	struct nbdk_net *n;
	int bytes = 1;

	in_own_network();
	CHECK_INT(nbdk_net_open(&n), 0);
	setsockopt(nbdk_net_fd(n), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	shell("for i in 1 2 3 4 5; do ip link set lo up; ip link set lo down; done");
	CHECK_INT(nbdk_net_read(n, collect, told), 0);
	CHECK(strstr(told, "too fast"));
	nbdk_net_close(n);
}

TEST(messages_of_other_processes_are_no_events)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg m;
	} forged = {
		.h = { .nlmsg_len = sizeof forged, .nlmsg_type = RTM_NEWLINK },
		.m = { .ifi_index = 1, .ifi_flags = IFF_UP | IFF_RUNNING },
	};
	struct sockaddr_nl to;
	socklen_t len = sizeof to;
	char told[TOLD_MAX] = "";
	struct nbdk_net *n;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	CHECK_INT(nbdk_net_open(&n), 0);
	CHECK_INT(getsockname(nbdk_net_fd(n), (struct sockaddr *)&to, &len), 0);
	CHECK_INT(sendto(fd, &forged, sizeof forged, 0, (struct sockaddr *)&to, len),
		  sizeof forged);
	CHECK(readable(nbdk_net_fd(n)));
	CHECK_INT(nbdk_net_read(n, collect, told), 0);
	CHECK_STR(told, "");
	close(fd);
	nbdk_net_close(n);
}

TEST(a_device_without_driver_or_without_existence_is_an_error)
{
	struct nbdk_holder holder;
	struct nbdk_info info;
	size_t count = 7;
	uint64_t value;
	int r = access("/sys/module/nbd", F_OK) < 0 ? -ENODEV : -ENOENT;

	CHECK_INT(nbdk_sysfs_read(NBDK_INDEX_MAX, &info), r);
	CHECK_INT(nbdk_sysfs_connection(NBDK_INDEX_MAX, &info), r);
	CHECK_INT(nbdk_queue_get(NBDK_INDEX_MAX, "io_timeout", &value), r);
	CHECK_INT(nbdk_queue_set(NBDK_INDEX_MAX, "io_timeout", 1), r);
	CHECK_INT(nbdk_holders(NBDK_INDEX_MAX, &holder, 1, &count), r);
	CHECK_INT(count, 7);
}

TEST(every_failed_connect_has_a_sentence)
{
	struct nbdk_connect c = {
		.index = NBDK_INDEX_ANY, .size = 1 << 20, .block_size = 4096,
		.identifier = "x",
	};

	for (int e = 1; e < 134; e++)
		CHECK(strlen(nbdk_connect_strerror(-e, &c)) > 15);
	CHECK_STR(nbdk_connect_strerror(-EINVAL, &c), "no socket was given");
	c.n_sockets = 1;
	c.sockets = (int[]){ -1 };
	CHECK(strstr(nbdk_connect_strerror(-EINVAL, &c), "stream sockets"));
}
