#include "netlink/genl.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <netlink/genl/ctrl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/util/fd.h"

/* Lengths are all that is checked: the kernel is trusted, but may be newer. */
static const struct nla_policy nbd_policy[NBD_ATTR_MAX + 1] = {
	[NBD_ATTR_INDEX] = { .type = NLA_U32 },
	[NBD_ATTR_DEVICE_LIST] = { .type = NLA_NESTED },
};

static const struct nla_policy ctrl_policy[CTRL_ATTR_MAX + 1] = {
	[CTRL_ATTR_FAMILY_ID] = { .type = NLA_U16 },
	[CTRL_ATTR_FAMILY_NAME] = { .type = NLA_STRING },
	[CTRL_ATTR_MCAST_GROUPS] = { .type = NLA_NESTED },
};

static const struct nla_policy group_policy[CTRL_ATTR_MCAST_GRP_MAX + 1] = {
	[CTRL_ATTR_MCAST_GRP_NAME] = { .type = NLA_STRING },
	[CTRL_ATTR_MCAST_GRP_ID] = { .type = NLA_U32 },
};

/* Empty the one message and start it anew. */
static void begin(struct genl *g, int family, uint8_t command, uint8_t version)
{
	struct nlmsghdr *h = nlmsg_hdr(g->msg);

	memset(h, 0, sizeof *h);
	h->nlmsg_len = nlmsg_size(0);
	/* Cannot fail: the headers fit into an empty message. */
	genlmsg_put(g->msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0,
		    NLM_F_REQUEST | NLM_F_ACK, command, version);
}

struct nl_msg *genl_begin(struct genl *g, uint8_t command)
{
	begin(g, g->family, command, NBD_GENL_VERSION);
	return g->msg;
}

int genl_put_u32(struct genl *g, int type, uint32_t value)
{
	return nla_put_u32(g->msg, type, value) < 0 ? -EMSGSIZE : 0;
}

int genl_put_u64(struct genl *g, int type, uint64_t value)
{
	return nla_put_u64(g->msg, type, value) < 0 ? -EMSGSIZE : 0;
}

int genl_put_string(struct genl *g, int type, const char *value)
{
	return nla_put_string(g->msg, type, value) < 0 ? -EMSGSIZE : 0;
}

static int send_request(struct genl *g)
{
	struct nlmsghdr *h = nlmsg_hdr(g->msg);
	ssize_t n;

	nl_complete_msg(g->sock, g->msg);
	do
		n = send(nl_socket_get_fd(g->sock), h, h->nlmsg_len, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Takes one message of an answer: 0, or -errno that becomes the result of the call. */
typedef int (*message_fn)(struct genl *g, struct nlmsghdr *h, void *userdata);

static int take_message(struct genl *g, struct nlmsghdr *h, message_fn fn, void *userdata,
			bool *ret_end)
{
	if (h->nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = nlmsg_data(h);

		*ret_end = true;
		if (nlmsg_datalen(h) < (int)sizeof e->error)
			return -EBADMSG;
		return e->error > 0 ? -EBADMSG : e->error;
	}
	return fn ? fn(g, h, userdata) : 0;
}

static int transact(struct genl *g, message_fn fn, void *userdata)
{
	uint32_t seq;
	bool end = false;
	int r, answer = 0;

	r = send_request(g);
	if (r < 0)
		return r;
	seq = nlmsg_hdr(g->msg)->nlmsg_seq;
	while (!end) {
		struct nlmsghdr *h = (struct nlmsghdr *)g->answer;
		ssize_t n = sock_receive(g->sock, g->answer, sizeof g->answer);
		int left = (int)n;

		if (n < 0)
			return n == -EAGAIN ? -ETIMEDOUT : (int)n;
		for (; !end && nlmsg_ok(h, left); h = nlmsg_next(h, &left)) {
			/* What an earlier call left behind when it failed half-way. */
			if (h->nlmsg_seq != seq)
				continue;
			r = take_message(g, h, fn, userdata, &end);
			if (r < 0 && answer == 0)
				answer = r;
		}
	}
	return answer;
}

int genl_parse(const struct genl *g, struct nlmsghdr *h, uint8_t *ret_command,
	       struct nlattr *attrs[static NBD_ATTR_MAX + 1])
{
	if (h->nlmsg_type != g->family || !genlmsg_valid_hdr(h, 0) ||
	    genlmsg_parse(h, 0, attrs, NBD_ATTR_MAX, nbd_policy) < 0)
		return -EBADMSG;
	*ret_command = genlmsg_hdr(h)->cmd;
	return 0;
}

struct call {
	genl_answer_fn fn;
	void *userdata;
};

static int nbd_message(struct genl *g, struct nlmsghdr *h, void *userdata)
{
	const struct call *call = userdata;
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	uint8_t command;
	int r = genl_parse(g, h, &command, attrs);

	if (r < 0 || !call->fn)
		return r;
	return call->fn(attrs, call->userdata);
}

static int take_groups(struct genl *g, struct nlattr *groups)
{
	struct nlattr *item;
	int left;

	nla_for_each_nested(item, groups, left) {
		struct nlattr *tb[CTRL_ATTR_MCAST_GRP_MAX + 1];

		if (nla_parse_nested(tb, CTRL_ATTR_MCAST_GRP_MAX, item, group_policy) < 0)
			return -EBADMSG;
		if (tb[CTRL_ATTR_MCAST_GRP_NAME] && tb[CTRL_ATTR_MCAST_GRP_ID] &&
		    !nla_strcmp(tb[CTRL_ATTR_MCAST_GRP_NAME], NBD_GENL_MCAST_GROUP_NAME))
			g->group = (int)nla_get_u32(tb[CTRL_ATTR_MCAST_GRP_ID]);
	}
	return 0;
}

static int take_family(struct genl *g, struct nlmsghdr *h, void *userdata)
{
	struct nlattr *tb[CTRL_ATTR_MAX + 1];

	if (h->nlmsg_type != GENL_ID_CTRL || !genlmsg_valid_hdr(h, 0) ||
	    genlmsg_parse(h, 0, tb, CTRL_ATTR_MAX, ctrl_policy) < 0 ||
	    !tb[CTRL_ATTR_FAMILY_ID])
		return -EBADMSG;
	g->family = nla_get_u16(tb[CTRL_ATTR_FAMILY_ID]);
	return tb[CTRL_ATTR_MCAST_GROUPS] ? take_groups(g, tb[CTRL_ATTR_MCAST_GROUPS]) : 0;
}

static int resolve(struct genl *g)
{
	int r;

	begin(g, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);
	r = genl_put_string(g, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME);
	if (r < 0)
		return r;
	r = transact(g, take_family, NULL);
	if (r < 0)
		return r;
	return g->family ? 0 : -EBADMSG;
}

/* The request in G, which went to a number that no family has, to the one that nbd has now. */
static int address_anew(struct genl *g)
{
	_Alignas(struct nlmsghdr) uint8_t request[GENL_REQUEST_MAX];
	struct nlmsghdr *kept = (struct nlmsghdr *)request;
	int before = g->family, r;

	memcpy(request, nlmsg_hdr(g->msg), nlmsg_hdr(g->msg)->nlmsg_len);
	r = resolve(g);
	if (r < 0 || g->family == before)
		return r < 0 ? r : -ENOENT;
	kept->nlmsg_type = (uint16_t)g->family;
	kept->nlmsg_seq = NL_AUTO_SEQ;
	memcpy(nlmsg_hdr(g->msg), request, kept->nlmsg_len);
	return 0;
}

int genl_call(struct genl *g, genl_answer_fn fn, void *userdata)
{
	struct call call = { fn, userdata };
	int r = transact(g, nbd_message, &call);

	if (r == -ENOENT && address_anew(g) == 0)
		r = transact(g, nbd_message, &call);
	return r;
}

bool genl_renewed(struct genl *g, struct nlmsghdr *h)
{
	struct nlattr *tb[CTRL_ATTR_MAX + 1];

	return h->nlmsg_type == GENL_ID_CTRL && genlmsg_valid_hdr(h, 0) &&
	       genlmsg_hdr(h)->cmd == CTRL_CMD_NEWFAMILY &&
	       genlmsg_parse(h, 0, tb, CTRL_ATTR_MAX, ctrl_policy) == 0 &&
	       tb[CTRL_ATTR_FAMILY_NAME] &&
	       !nla_strcmp(tb[CTRL_ATTR_FAMILY_NAME], NBD_GENL_FAMILY_NAME) &&
	       take_family(g, h, NULL) == 0;
}

/* The kernel has answered when send() returns.  Another nbdd that has the same socket, to take
 * it over, may have read that: then it is not waited for without end. */
static int set_up(struct genl *g)
{
	const struct timeval limit = { .tv_sec = 1 };
	const int one = 1;
	int r;

	/* Errors need not carry our request back; old kernels cannot leave it out. */
	setsockopt(nl_socket_get_fd(g->sock), SOL_NETLINK, NETLINK_CAP_ACK, &one,
		   sizeof one);
	setsockopt(nl_socket_get_fd(g->sock), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	g->msg = nlmsg_alloc_size(GENL_REQUEST_MAX);
	r = g->msg ? resolve(g) : -ENOMEM;
	if (r < 0)
		genl_close(g);
	return r;
}

int genl_open(struct genl *g)
{
	int r;

	*g = (struct genl){ 0 };
	r = sock_open(NETLINK_GENERIC, &g->sock);
	return r < 0 ? r : set_up(g);
}

int genl_open_fd(struct genl *g, int fd)
{
	int r;

	*g = (struct genl){ 0 };
	r = sock_open_fd(NETLINK_GENERIC, fd, &g->sock);
	return r < 0 ? r : set_up(g);
}

void genl_close(struct genl *g)
{
	if (g->msg)
		nlmsg_free(g->msg);
	if (g->sock)
		nl_socket_free(g->sock);
	*g = (struct genl){ 0 };
}

static int open_with(int fd, struct nbdk **ret)
{
	struct nbdk *k = malloc(sizeof *k);
	int r;

	if (!k) {
		fd_close(fd);
		return -ENOMEM;
	}
	r = fd < 0 ? genl_open(&k->genl) : genl_open_fd(&k->genl, fd);
	if (r < 0) {
		free(k);
		return r;
	}
	*ret = k;
	return 0;
}

int nbdk_open(struct nbdk **ret)
{
	return open_with(-1, ret);
}

int nbdk_open_fd(int fd, struct nbdk **ret)
{
	return open_with(fd, ret);
}

int nbdk_fd(const struct nbdk *k)
{
	return nl_socket_get_fd(k->genl.sock);
}

void nbdk_close(struct nbdk *k)
{
	if (!k)
		return;
	genl_close(&k->genl);
	free(k);
}
