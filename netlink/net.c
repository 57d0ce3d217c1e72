/* What happens to links, addresses and routes, as far as a server may be reachable now that
 * was not before (rtnetlink(7)). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util/escape.h"
#include "netlink/nbdk.h"
#include "netlink/sock.h"

#define NET_RECEIVE_BUFFER	(1 << 18)
#define NET_MESSAGE_MAX		32768	/* what the kernel makes at most for one reader */
#define NET_LINKS_MAX		64	/* interfaces whose last state is remembered */
#define NET_WHAT_MAX		192
#define NET_NAME_MAX		(4 * IF_NAMESIZE)	/* escaped */

struct link_state {
	int index;
	bool running;
};

struct nbdk_net {
	struct nl_sock *sock;
	struct link_state links[NET_LINKS_MAX];
	size_t n_links;
	_Alignas(struct nlmsghdr) char buf[NET_MESSAGE_MAX];
};

/* Remember whether the interface runs: true when that is news.  Links are announced anew
 * for statistics, wireless scans, MTU changes, which must not look like a new chance. */
static bool link_changed(struct nbdk_net *n, int index, bool running)
{
	struct link_state *l;

	for (size_t i = 0; i < n->n_links; i++) {
		l = &n->links[i];
		if (l->index != index)
			continue;
		if (l->running == running)
			return false;
		l->running = running;
		return true;
	}
	/* With more interfaces than places a repeated announcement costs one early retry. */
	if (n->n_links < NET_LINKS_MAX)
		n->links[n->n_links++] = (struct link_state){ index, running };
	return true;
}

static void forget_link(struct nbdk_net *n, int index)
{
	for (size_t i = 0; i < n->n_links; i++)
		if (n->links[i].index == index) {
			n->links[i] = n->links[--n->n_links];
			return;
		}
}

static const char *link_name(char buf[static NET_NAME_MAX], int index)
{
	char name[IF_NAMESIZE];

	if (if_indextoname((unsigned)index, name))
		escape_text(buf, NET_NAME_MAX, name, strlen(name));
	else	/* gone again already */
		snprintf(buf, NET_NAME_MAX, "interface %d", index);
	return buf;
}

/* An address attribute as text; false for anything that is not one of FAMILY. */
static bool address_text(char buf[static INET6_ADDRSTRLEN], int family,
			 const struct nlattr *a)
{
	int len = family == AF_INET ? 4 : family == AF_INET6 ? 16 : -1;

	return a && nla_len(a) == len &&
	       inet_ntop(family, nla_data(a), buf, INET6_ADDRSTRLEN);
}

static bool new_link(struct nbdk_net *n, struct nlmsghdr *h, char what[static NET_WHAT_MAX])
{
	const struct ifinfomsg *m = nlmsg_data(h);
	bool running = (m->ifi_flags & IFF_UP) && (m->ifi_flags & IFF_RUNNING);
	char name[NET_NAME_MAX];

	/* Bridges tell of their ports' forwarding state with the same message. */
	if (m->ifi_family != AF_UNSPEC || !link_changed(n, m->ifi_index, running) || !running)
		return false;
	snprintf(what, NET_WHAT_MAX, "%s: up", link_name(name, m->ifi_index));
	return true;
}

static bool del_link(struct nbdk_net *n, struct nlmsghdr *h, char what[static NET_WHAT_MAX])
{
	const struct ifinfomsg *m = nlmsg_data(h);

	if (m->ifi_family == AF_UNSPEC)
		forget_link(n, m->ifi_index);
	return false;
}

static bool new_address(struct nbdk_net *n, struct nlmsghdr *h,
			char what[static NET_WHAT_MAX])
{
	const struct ifaddrmsg *m = nlmsg_data(h);
	struct nlattr *tb[IFA_MAX + 1];
	char name[NET_NAME_MAX], address[INET6_ADDRSTRLEN];
	uint32_t flags = m->ifa_flags;

	if (nlmsg_parse(h, sizeof *m, tb, IFA_MAX, NULL) < 0)
		return false;
	if (tb[IFA_FLAGS] && nla_len(tb[IFA_FLAGS]) >= 4)
		flags = nla_get_u32(tb[IFA_FLAGS]);
	/* Cannot be used before duplicate detection is through; then it is told again. */
	if (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED))
		return false;
	if (!address_text(address, m->ifa_family,
			  tb[IFA_LOCAL] ? tb[IFA_LOCAL] : tb[IFA_ADDRESS]))
		return false;
	snprintf(what, NET_WHAT_MAX, "%s: address %s", link_name(name, (int)m->ifa_index),
		 address);
	return true;
}

static bool new_route(struct nbdk_net *n, struct nlmsghdr *h,
		      char what[static NET_WHAT_MAX])
{
	const struct rtmsg *m = nlmsg_data(h);
	struct nlattr *tb[RTA_MAX + 1];
	char name[NET_NAME_MAX] = "several interfaces", to[INET6_ADDRSTRLEN];

	/* Local, broadcast and multicast routes only follow from addresses. */
	if (m->rtm_type != RTN_UNICAST || m->rtm_table == RT_TABLE_LOCAL ||
	    (m->rtm_flags & RTM_F_CLONED) ||
	    nlmsg_parse(h, sizeof *m, tb, RTA_MAX, NULL) < 0)
		return false;
	if (tb[RTA_OIF] && nla_len(tb[RTA_OIF]) >= 4)
		link_name(name, (int)nla_get_u32(tb[RTA_OIF]));
	if (m->rtm_dst_len == 0)
		snprintf(what, NET_WHAT_MAX, "%s: default route", name);
	else if (address_text(to, m->rtm_family, tb[RTA_DST]))
		snprintf(what, NET_WHAT_MAX, "%s: route to %s/%u", name, to,
			 m->rtm_dst_len);
	else
		return false;
	return true;
}

static const struct {
	uint16_t type;
	size_t header;
	/* True: WHAT is worth telling. */
	bool (*take)(struct nbdk_net *n, struct nlmsghdr *h, char *what);
} messages[] = {
	{ RTM_NEWLINK, sizeof(struct ifinfomsg), new_link },
	{ RTM_DELLINK, sizeof(struct ifinfomsg), del_link },
	{ RTM_NEWADDR, sizeof(struct ifaddrmsg), new_address },
	{ RTM_NEWROUTE, sizeof(struct rtmsg), new_route },
};

static void take_messages(struct nbdk_net *n, int left, nbdk_net_fn fn, void *userdata)
{
	struct nlmsghdr *h = (struct nlmsghdr *)n->buf;

	for (; nlmsg_ok(h, left); h = nlmsg_next(h, &left))
		for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
			char what[NET_WHAT_MAX];

			if (h->nlmsg_type == messages[i].type &&
			    nlmsg_valid_hdr(h, (int)messages[i].header) &&
			    messages[i].take(n, h, what))
				fn(what, userdata);
		}
}

int nbdk_net_read(struct nbdk_net *n, nbdk_net_fn fn, void *userdata)
{
	for (;;) {
		ssize_t len = sock_receive(n->sock, n->buf, sizeof n->buf);

		if (len == -EAGAIN)
			return 0;
		/* What was lost may have been the chance that somebody waits for. */
		if (len == -ENOBUFS || len == -EMSGSIZE)
			fn("the network changed too fast to follow", userdata);
		else if (len < 0)
			return (int)len;
		else
			take_messages(n, (int)len, fn, userdata);
	}
}

static int join_groups(struct nl_sock *sock)
{
	static const int groups[] = {
		RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
		RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
	};
	int r = sock_listen(sock, NET_RECEIVE_BUFFER);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(groups); i++)
		r = sock_join(sock, groups[i]);
	return r;
}

int nbdk_net_open(struct nbdk_net **ret)
{
	struct nbdk_net *n = calloc(1, sizeof *n);
	int r;

	if (!n)
		return -ENOMEM;
	r = sock_open(NETLINK_ROUTE, &n->sock);
	if (r == 0)
		r = join_groups(n->sock);
	if (r < 0) {
		nbdk_net_close(n);
		return r;
	}
	*ret = n;
	return 0;
}

void nbdk_net_close(struct nbdk_net *n)
{
	if (!n)
		return;
	if (n->sock)
		nl_socket_free(n->sock);
	free(n);
}

int nbdk_net_fd(const struct nbdk_net *n)
{
	return nl_socket_get_fd(n->sock);
}
