/* Any bytes as what comes out of a netlink socket: the driver's answers, its events, the
 * network's.  Byte 0 says which; then datagrams of a 16-bit little-endian length each.
 *
 * In the place of netlink/sock.c stand the functions below (--wrap). */
#include <errno.h>
#include <linux/genetlink.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/util/escape.h"
#include "lib/util/macro.h"
#include "netlink/genl.h"
#include "netlink/nbdk.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/promise.h"

#define FAMILY	0x21
#define GROUP	7
#define CALLS_MAX 100000

static struct {
	const uint8_t *data;
	size_t len;
	bool canned;		/* the family's name is resolved for us */
	uint32_t seq;
	unsigned reads;
} feed;

int __wrap_sock_open(int protocol, struct nl_sock **ret);
int __wrap_sock_listen(struct nl_sock *sock, int bytes);
int __wrap_sock_join(struct nl_sock *sock, int group);
ssize_t __wrap_sock_receive(struct nl_sock *sock, void *buf, size_t size);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);

int __wrap_sock_open(int protocol, struct nl_sock **ret)
{
	*ret = nl_socket_alloc();
	return *ret ? 0 : -ENOMEM;
}

int __wrap_sock_listen(struct nl_sock *sock, int bytes)
{
	return 0;
}

int __wrap_sock_join(struct nl_sock *sock, int group)
{
	PROMISE(group != 0);
	return 0;
}

ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
	const struct nlmsghdr *h = buf;

	PROMISE(len >= sizeof(*h) && h->nlmsg_len == len && len <= GENL_REQUEST_MAX);
	feed.seq = h->nlmsg_seq;
	return (ssize_t)len;
}

/* As the kernel answers CTRL_CMD_GETFAMILY. */
static size_t family(uint8_t *buf)
{
	struct nl_msg *m = nlmsg_alloc();
	struct nlattr *groups, *one;
	size_t len;

	PROMISE(m && genlmsg_put(m, 0, feed.seq, GENL_ID_CTRL, 0, 0, CTRL_CMD_NEWFAMILY, 2));
	PROMISE(nla_put_u16(m, CTRL_ATTR_FAMILY_ID, FAMILY) == 0);
	groups = nla_nest_start(m, CTRL_ATTR_MCAST_GROUPS);
	one = nla_nest_start(m, 1);
	PROMISE(nla_put_u32(m, CTRL_ATTR_MCAST_GRP_ID, GROUP) == 0);
	PROMISE(nla_put_string(m, CTRL_ATTR_MCAST_GRP_NAME, NBD_GENL_MCAST_GROUP_NAME) == 0);
	nla_nest_end(m, one);
	nla_nest_end(m, groups);
	len = nlmsg_hdr(m)->nlmsg_len;
	memcpy(buf, nlmsg_hdr(m), len);
	nlmsg_free(m);
	len = NLMSG_ALIGN(len);
	*(struct nlmsghdr *)(void *)(buf + len) = (struct nlmsghdr){
		.nlmsg_len = NLMSG_LENGTH(sizeof(struct nlmsgerr)), .nlmsg_type = NLMSG_ERROR,
		.nlmsg_seq = feed.seq };
	memset(buf + len + NLMSG_HDRLEN, 0, sizeof(struct nlmsgerr));
	return len + NLMSG_LENGTH(sizeof(struct nlmsgerr));
}

/* A message with number 0 answers what was asked last. */
static void number_messages(uint8_t *buf, size_t len)
{
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;
	int left = (int)len;

	for (; nlmsg_ok(h, left); h = nlmsg_next(h, &left))
		if (!h->nlmsg_seq)
			h->nlmsg_seq = feed.seq;
}

ssize_t __wrap_sock_receive(struct nl_sock *sock, void *buf, size_t size)
{
	size_t len;

	if (feed.canned) {
		feed.canned = false;
		return (ssize_t)family(buf);
	}
	PROMISE(feed.reads++ < CALLS_MAX);
	if (feed.len < 2)
		return -EAGAIN;
	len = (size_t)(feed.data[0] | feed.data[1] << 8);
	feed.data += 2;
	feed.len -= 2;
	len = MIN(len, feed.len);
	if (len > size || !len) {
		feed.data += len;
		feed.len -= len;
		return len ? -EMSGSIZE : -ENOBUFS;
	}
	memcpy(buf, feed.data, len);
	/* What lies behind a short datagram is what the last one left. */
	number_messages(buf, len);
	feed.data += len;
	feed.len -= len;
	return (ssize_t)len;
}

static void on_dead(unsigned index, void *userdata)
{
	PROMISE(++*(unsigned *)userdata < CALLS_MAX);
}

static void on_net(const char *what, void *userdata)
{
	PROMISE(*what && text_is_printable(what, strlen(what)) && strlen(what) < 192);
}

static void call(void)
{
	bool connected = false;
	struct nbdk *k = NULL;
	unsigned index;
	int r = nbdk_open(&k), sockets[] = { 5, 6 };
	struct nbdk_connect c = { .index = NBDK_INDEX_ANY, .size = 1 << 20, .block_size = 512,
				  .identifier = "fuzz", .sockets = sockets, .n_sockets = 2 };

	PROMISE(r <= 0 && (r < 0) == !k);
	if (r < 0)
		return;
	PROMISE(nbdk_kernel_ops.status(k, 3, &connected) <= 0);
	r = nbdk_kernel_ops.connect(k, &c, &index);
	PROMISE(r < 0 || (r == 0 && index <= NBDK_INDEX_MAX));
	PROMISE(nbdk_kernel_ops.disconnect(k, 3) <= 0);
	nbdk_close(k);
}

static void events(void)
{
	struct nbdk_events *e = NULL;
	unsigned n = 0;
	int r = nbdk_events_open(&e);

	PROMISE(r <= 0 && (r < 0) == !e);
	if (e)
		PROMISE(nbdk_events_read(e, on_dead, &n) <= 0);
	nbdk_events_close(e);
}

static void net(void)
{
	struct nbdk_net *n = NULL;

	PROMISE(nbdk_net_open(&n) == 0);
	PROMISE(nbdk_net_read(n, on_net, NULL) <= 0);
	nbdk_net_close(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const kinds[])(void) = { call, events, net };

	if (!size)
		return 0;
	memset(&feed, 0, sizeof(feed));
	feed.data = data + 1;
	feed.len = size - 1;
	/* The rest of the byte: is the answer about the family part of the input? */
	feed.canned = !(data[0] & 0x80) && data[0] % 4 != 2;
	kinds[data[0] % ARRAY_SIZE(kinds)]();
	return 0;
}
