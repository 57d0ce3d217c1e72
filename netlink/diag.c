/* What the kernel knows of a socket that we hold no descriptor of. */
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/util/cleanup.h"
#include "lib/util/fd.h"
#include "netlink/nbdk.h"
#include "netlink/proc_net.h"
#include "netlink/sock.h"

#define DIAG_ANSWER_MAX 8192

struct nbdk_diag {
	struct nl_sock *sock;		/* NULL: none on this kernel */
	bool tcp, local;		/* what it answers for; the rest is in /proc/net */
	_Alignas(struct nlmsghdr) uint8_t answer[DIAG_ANSWER_MAX];
};

struct request {
	struct nlmsghdr header;
	union {
		struct inet_diag_req_v2 inet;
		struct unix_diag_req local;
	};
};

int nbdk_sock_identify(int fd, struct nbdk_sock *ret)
{
	struct nbdk_sock s = {};
	socklen_t local = sizeof s.local, peer = sizeof s.peer;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	if (getsockname(fd, (struct sockaddr *)&s.local, &local) < 0 ||
	    getpeername(fd, (struct sockaddr *)&s.peer, &peer) < 0)
		return -errno;
	if (s.local.ss_family != AF_INET && s.local.ss_family != AF_INET6 &&
	    s.local.ss_family != AF_UNIX)
		return -EAFNOSUPPORT;
	s.inode = st.st_ino;
	*ret = s;
	return 0;
}

/* ---- requests ---------------------------------------------------------------------- */

static void put_address(const struct sockaddr_storage *from, __be16 *port, __be32 address[4])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;

	if (from->ss_family == AF_INET) {
		*port = in->sin_port;
		address[0] = in->sin_addr.s_addr;
	} else if (from->ss_family == AF_INET6) {
		*port = in6->sin6_port;
		memcpy(address, &in6->sin6_addr, sizeof in6->sin6_addr);
	}
}

/* A socket is bound to an interface by its link-local address alone. */
static uint32_t interface_of(const struct nbdk_sock *s)
{
	return s->local.ss_family == AF_INET6
		? ((const struct sockaddr_in6 *)&s->local)->sin6_scope_id : 0;
}

static void build(struct request *q, uint16_t type, const struct nbdk_sock *s)
{
	bool local = s->local.ss_family == AF_UNIX;

	*q = (struct request){ .header = { .nlmsg_type = type,
					   .nlmsg_flags = NLM_F_REQUEST } };
	q->header.nlmsg_len = NLMSG_LENGTH(local ? sizeof q->local : sizeof q->inet);
	/* SOCK_DESTROY says nothing but its acknowledgement. */
	if (type == SOCK_DESTROY)
		q->header.nlmsg_flags |= NLM_F_ACK;
	if (local) {
		q->local = (struct unix_diag_req){
			.sdiag_family = AF_UNIX, .udiag_states = ~0u,
			.udiag_ino = (uint32_t)s->inode, .udiag_cookie = { ~0u, ~0u } };
		return;
	}
	q->inet = (struct inet_diag_req_v2){
		.sdiag_family = (uint8_t)s->local.ss_family, .sdiag_protocol = IPPROTO_TCP,
		.idiag_ext = 1 << (INET_DIAG_INFO - 1), .idiag_states = ~0u,
		.id = { .idiag_if = interface_of(s),
			.idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE } } };
	put_address(&s->local, &q->inet.id.idiag_sport, q->inet.id.idiag_src);
	put_address(&s->peer, &q->inet.id.idiag_dport, q->inet.id.idiag_dst);
}

/* Send Q; the kernel has answered when send(2) returns.  The answer, whose errors are
 * returned; *RET is NULL for an acknowledgement. */
static int transact(struct nbdk_diag *d, struct request *q, struct nlmsghdr **ret)
{
	struct nlmsghdr *h = (struct nlmsghdr *)d->answer;
	int left;

	q->header.nlmsg_seq = nl_socket_use_seq(d->sock);
	if (send(nl_socket_get_fd(d->sock), q, q->header.nlmsg_len, 0) < 0)
		return -errno;
	do {
		ssize_t n = sock_receive(d->sock, d->answer, sizeof d->answer);

		if (n < 0)
			return n == -EAGAIN ? -ENODATA : (int)n;
		left = (int)n;
	} while (nlmsg_ok(h, left) && h->nlmsg_seq != q->header.nlmsg_seq);
	if (!nlmsg_ok(h, left))
		return -EBADMSG;
	*ret = h;
	if (h->nlmsg_type != NLMSG_ERROR)
		return 0;
	*ret = NULL;
	return nlmsg_datalen(h) < (int)sizeof(struct nlmsgerr)
		? -EBADMSG : ((struct nlmsgerr *)nlmsg_data(h))->error;
}

static int take_tcp(struct nlmsghdr *h, const struct nbdk_sock *s, struct nbdk_sock_info *i)
{
	const struct inet_diag_msg *m = nlmsg_data(h);
	const struct nlattr *a;
	struct tcp_info info = {};

	if (nlmsg_datalen(h) < (int)sizeof *m)
		return -EBADMSG;
	i->sure = true;
	if (m->idiag_inode != (uint32_t)s->inode)
		return 0;	/* another one with these addresses, or its last remains */
	i->alive = m->idiag_state == TCP_ESTABLISHED;
	a = nlmsg_find_attr(h, sizeof *m, INET_DIAG_INFO);
	if (a)
		memcpy(&info, nla_data(a), MIN((size_t)nla_len(a), sizeof info));
	i->rtt_usec = info.tcpi_rtt;
	i->retransmits = info.tcpi_total_retrans;
	return 0;
}

/* A stream socket whose peer has gone stays `established`, but is shut down. */
static int take_local(struct nlmsghdr *h, struct nbdk_sock_info *i)
{
	const struct unix_diag_msg *m = nlmsg_data(h);
	const struct nlattr *shut;

	if (nlmsg_datalen(h) < (int)sizeof *m)
		return -EBADMSG;
	shut = nlmsg_find_attr(h, sizeof *m, UNIX_DIAG_SHUTDOWN);
	i->sure = shut != NULL;
	i->alive = m->udiag_state == TCP_ESTABLISHED && (!shut || nla_get_u8(shut) == 0);
	return 0;
}

/* ------------------------------------------------------------------------------------ */

static bool diag_answers_for(const struct nbdk_diag *d, const struct nbdk_sock *s)
{
	return d->sock && (s->local.ss_family == AF_UNIX ? d->local : d->tcp);
}

int nbdk_diag_ask(struct nbdk_diag *d, const struct nbdk_sock *s, struct nbdk_sock_info *ret)
{
	struct nbdk_sock_info info = {};
	struct nlmsghdr *h;
	struct request q;
	int r;

	if (!diag_answers_for(d, s))
		return proc_net_find(s, ret);
	build(&q, SOCK_DIAG_BY_FAMILY, s);
	r = transact(d, &q, &h);
	/* So it says, too, when its module for such sockets is not there. */
	if (r == -ENOENT)
		return proc_net_find(s, ret);
	if (r < 0 || !h)
		return r < 0 ? r : -EBADMSG;
	r = s->local.ss_family == AF_UNIX ? take_local(h, &info) : take_tcp(h, s, &info);
	if (r < 0)
		return r;
	*ret = info;
	return 0;
}

int nbdk_diag_abort(struct nbdk_diag *d, const struct nbdk_sock *s)
{
	struct nbdk_sock_info info;
	struct nlmsghdr *h;
	struct request q;
	int r;

	if (s->local.ss_family == AF_UNIX || !diag_answers_for(d, s))
		return -EOPNOTSUPP;
	/* The request goes by addresses: be sure that they are still this socket's. */
	r = nbdk_diag_ask(d, s, &info);
	if (r < 0 || !info.alive)
		return r < 0 ? r : -ENOENT;
	build(&q, SOCK_DESTROY, s);
	return transact(d, &q, &h);
}

/* Does the kernel answer for sockets like S, which there is not? */
static bool probe(struct nbdk_diag *d, const struct nbdk_sock *s)
{
	struct nlmsghdr *h;
	struct request q;
	int r;

	build(&q, SOCK_DIAG_BY_FAMILY, s);
	r = transact(d, &q, &h);
	return r == 0 || r == -ENOENT;
}

/* Without a socket, too, there is an answer: from /proc/net. */
int nbdk_diag_open(struct nbdk_diag **ret)
{
	const struct nbdk_sock tcp = { .inode = 1, .local.ss_family = AF_INET };
	const struct nbdk_sock local = { .inode = 1, .local.ss_family = AF_UNIX };
	struct nbdk_diag *d = calloc(1, sizeof *d);

	if (!d)
		return -ENOMEM;
	if (sock_open(NETLINK_SOCK_DIAG, &d->sock) == 0) {
		fd_set_nonblock(nl_socket_get_fd(d->sock), true);
		d->tcp = probe(d, &tcp);
		d->local = probe(d, &local);
	}
	*ret = d;
	return 0;
}

void nbdk_diag_close(struct nbdk_diag *d)
{
	if (!d)
		return;
	if (d->sock)
		nl_socket_free(d->sock);
	free(d);
}
