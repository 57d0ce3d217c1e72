/* The driver's link-dead multicast: one message a dead socket, with the index only. */
#include <errno.h>
#include <stdlib.h>

#include "netlink/genl.h"

/* A thousand links can die with one server; a message costs the kernel under 1 KiB. */
#define EVENTS_RECEIVE_BUFFER	(1 << 20)

struct nbdk_events {
	struct genl genl;
};

static int listen_to(struct genl *g)
{
	int r;

	/* A driver without the group is older than any that this daemon supports. */
	if (!g->group)
		return -EOPNOTSUPP;
	r = sock_listen(g->sock, EVENTS_RECEIVE_BUFFER);
	if (r >= 0)
		r = sock_join(g->sock, GENL_CTRL_GROUP);
	return r < 0 ? r : sock_join(g->sock, g->group);
}

int nbdk_events_open(struct nbdk_events **ret)
{
	struct nbdk_events *e = malloc(sizeof *e);
	int r;

	if (!e)
		return -ENOMEM;
	r = genl_open(&e->genl);
	if (r < 0) {
		free(e);
		return r;
	}
	r = listen_to(&e->genl);
	if (r < 0) {
		nbdk_events_close(e);
		return r;
	}
	*ret = e;
	return 0;
}

void nbdk_events_close(struct nbdk_events *e)
{
	if (!e)
		return;
	genl_close(&e->genl);
	free(e);
}

int nbdk_events_fd(const struct nbdk_events *e)
{
	return nl_socket_get_fd(e->genl.sock);
}

static void take_events(struct nbdk_events *e, ssize_t len, nbdk_link_dead_fn fn,
			void *userdata)
{
	struct nlmsghdr *h = (struct nlmsghdr *)e->genl.answer;
	int left = (int)len;

	for (; nlmsg_ok(h, left); h = nlmsg_next(h, &left)) {
		struct nlattr *attrs[NBD_ATTR_MAX + 1];
		uint8_t command;

		/* The driver was loaded anew, and the group of before went with it. */
		if (genl_renewed(&e->genl, h)) {
			if (e->genl.group)
				(void)!sock_join(e->genl.sock, e->genl.group);
			continue;
		}
		if (genl_parse(&e->genl, h, &command, attrs) == 0 &&
		    command == NBD_CMD_LINK_DEAD && attrs[NBD_ATTR_INDEX])
			fn(nla_get_u32(attrs[NBD_ATTR_INDEX]), userdata);
	}
}

int nbdk_events_read(struct nbdk_events *e, nbdk_link_dead_fn fn, void *userdata)
{
	int lost = 0;

	for (;;) {
		ssize_t n = sock_receive(e->genl.sock, e->genl.answer,
					 sizeof e->genl.answer);

		/* The kernel drops what finds the buffer full and says so once, before
		 * the events that it kept. */
		if (n == -ENOBUFS || n == -EMSGSIZE)
			lost = -ENOBUFS;
		else if (n < 0)
			return n == -EAGAIN ? lost : (int)n;
		else
			take_events(e, n, fn, userdata);
	}
}
