#include "daemon/link.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

#include "daemon/device_tls.h"
#include "daemon/event.h"
#include "daemon/fdstore.h"
#include "daemon/ktls.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/one_server.h"
#include "daemon/retry.h"
#include "daemon/tls_watch.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

void link_format_peer(char ret[static LINK_PEER_MAX], const struct sockaddr_storage *addr,
		      socklen_t len)
{
	char host[64], port[16];

	if (addr->ss_family == AF_UNIX)
		snprintf(ret, LINK_PEER_MAX, "%.*s",
			 (int)sizeof(((struct sockaddr_un *)0)->sun_path),
			 ((const struct sockaddr_un *)addr)->sun_path);
	else if (addr->ss_family == AF_VSOCK)
		snprintf(ret, LINK_PEER_MAX, "vsock:%u:%u",
			 ((const struct sockaddr_vm *)addr)->svm_cid,
			 ((const struct sockaddr_vm *)addr)->svm_port);
	else if (getnameinfo((const struct sockaddr *)addr, len, host, sizeof(host), port,
			     sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(ret, LINK_PEER_MAX, "?");
	else
		snprintf(ret, LINK_PEER_MAX,
			 addr->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static void describe_peer(struct link *l)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (getpeername(link_server_fd(l), (struct sockaddr *)&addr, &len) < 0)
		snprintf(l->peer, sizeof(l->peer), "?");
	else
		link_format_peer(l->peer, &addr, len);
}

static void set_option(struct link *l, int level, int option, uint64_t value)
{
	int v = (int)MIN(value, (uint64_t)INT32_MAX);

	if (setsockopt(link_server_fd(l), level, option, &v, sizeof(v)) < 0)
		device_log(l->device, LOG_WARNING, "socket option %d/%d: %s", level, option,
			   strerror(errno));
}

/* Both are needed: probes find a dead peer while the link is idle, the user timeout while
 * data is on its way.  Black hole to LINK_DEAD: the keepalive-timeout, within a second. */
void link_set_keepalive(struct link *l)
{
	const struct device_keys *k = &l->device->keys;
	uint64_t idle = MAX(k->keepalive_usec / USEC_PER_SEC, 1u);
	uint64_t rest = usec_sub(k->keepalive_timeout_usec, idle * USEC_PER_SEC);
	int domain = AF_UNIX;
	socklen_t len = sizeof(domain);

	getsockopt(link_server_fd(l), SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (domain != AF_INET && domain != AF_INET6)
		return;
	set_option(l, SOL_SOCKET, SO_KEEPALIVE, k->keepalive_usec != 0);
	if (k->keepalive_usec == 0)
		return;
	set_option(l, IPPROTO_TCP, TCP_KEEPIDLE, idle);
	set_option(l, IPPROTO_TCP, TCP_USER_TIMEOUT,
		   k->keepalive_timeout_usec / USEC_PER_MSEC);
	if (!k->keepalive_timeout_usec)
		return;
	set_option(l, IPPROTO_TCP, TCP_KEEPINTVL, 1);
	set_option(l, IPPROTO_TCP, TCP_KEEPCNT, MAX(rest / USEC_PER_SEC, 1u));
}

/* The kernel's nbd driver takes TCP and Unix sockets. */
static bool is_vsock(int fd)
{
	int domain = AF_UNSPEC;
	socklen_t len = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_VSOCK;
}

static int take_connection(struct link *l, const struct connection *c)
{
	int r;

	l->fd = c->fd;
	if (c->state.version || is_vsock(c->fd)) {
		r = link_relay_start(l, c->fd, &c->state);
		if (r < 0) {
			l->fd = -1;
			return r;
		}
	}
	l->info = c->info;
	l->tls = c->tls;
	l->state = l->relay.there ? LINK_CONNECTING : LINK_READY;
	describe_peer(l);
	link_set_keepalive(l);
	if (nbdk_sock_identify(l->fd, &l->sock) < 0)
		l->sock = (struct nbdk_sock){};
	return 0;
}

static void tell(struct link *l, const struct event_detail *e)
{
	struct device *d = l->device;
	struct manager *m = d->manager;

	if (l->state == LINK_READY)
		device_event(d, l->candidate ? EV_CANDIDATE : EV_SOCKET, e);
	else
		device_event(d, l->candidate ? EV_CANDIDATE_FAILED : EV_FAILED, e);
	manager_kick(m);
}

static void tell_no_relay(struct link *l, int error)
{
	char text[128];

	snprintf(text, sizeof(text), "cannot start a relay: %s", child_strerror(error));
	tell(l, &(struct event_detail){ .link = l, .failure = FAILURE_BACKOFF, .text = text });
}

void link_relayed(struct link *l, int r)
{
	_cleanup_free_ struct digests *digests = STEAL_PTR(l->digests);

	if (r < 0) {
		link_reset(l);
		tell_no_relay(l, r);
		return;
	}
	l->state = LINK_READY;
	tell(l, &(struct event_detail){ .link = l, .digests = digests });
}

/* Not before its relay has begun: an nbdd that comes after us has to know which one it is. */
static int await_relay(struct link *l, const struct digests *digests)
{
	l->digests = digests ? malloc(sizeof(*digests)) : NULL;
	if (digests && !l->digests)
		return -ENOMEM;
	if (digests)
		*l->digests = *digests;
	return link_relay_await(l);
}

static void on_connector(const struct connector_result *result, void *userdata)
{
	struct event_detail e = { .failure = result->failure, .text = result->message };
	struct link *l = userdata;
	struct device *d = l->device;
	struct manager *m = d->manager;
	int r = 0;

	l->connector = NULL;
	l->state = LINK_IDLE;
	e.link = l;
	e.digests = result->digests;
	/* Another time without the kernel's, and nobody hears of this one. */
	if (result->kernel_tls[0] && ktls_distrust(d, l->candidate, result->kernel_tls)) {
		if (l->candidate) {
			move_connect(d);
			manager_kick(m);
			return;
		}
		r = link_connect(l);
		if (r == 0 || r == -EAGAIN)	/* keys are being read, or it has to wait */
			return;
		r = 0;
	}
	if (!l->candidate && (result->connection || result->failure == FAILURE_PERMANENT))
		retry_server_answers(m, target_server(&d->target),
				     result->connection);
	if (result->connection) {
		/* Each time it would ask modprobe again, which may be away. */
		if (result->connection->tls.no_cipher)
			ktls_distrust(d, l->candidate, result->connection->tls.why_not);
		r = take_connection(l, result->connection);
	}
	if (r >= 0 && l->state == LINK_CONNECTING)
		r = await_relay(l, result->digests);
	if (r < 0)
		link_relayed(l, r);
	else if (l->state != LINK_CONNECTING)
		tell(l, &e);
	else
		manager_kick(m);
}

static int connect_to(struct link *l, struct target *target, const struct tls_plan *tls,
		      uint64_t limit_usec, const struct samples *samples)
{
	struct server server;
	struct connector_spec spec = {
		.name = l->device->name, .target = target, .server = &server, .tls = tls,
		.samples = samples, .limit_usec = limit_usec, .done = on_connector,
		.userdata = l };
	int r;

	one_server_choose(l, target, &server);
	r = connector_start(l->device->manager->connectors, &spec, &l->connector);
	if (r < 0)
		return r;
	l->state = LINK_CONNECTING;
	return 0;
}

int link_connect(struct link *l)
{
	struct device *d = l->device;
	struct tls_plan tls;
	int r;

	if (connectors_busy(d->manager->connectors)) {
		d->queued = true;
		return -EAGAIN;
	}
	r = device_tls_ready(d, &tls);
	if (r < 0)
		return r;
	tls.load = d->state == STATE_CONNECTING && !manager_any_out(d->manager);
	d->target.preinit_size = d->keys.preinit ? d->keys.size : 0;
	r = connect_to(l, &d->target, &tls, d->keys.connect_timeout_usec, NULL);
	d->queued |= r == -EAGAIN;
	return r;
}

int link_connect_candidate(struct link *l, struct target *target,
			   const struct tls_plan *tls, uint64_t limit_usec,
			   const struct samples *samples)
{
	l->candidate = true;
	return connect_to(l, target, tls, limit_usec, samples);
}

bool link_network(const struct link *l, struct link_network *ret)
{
	struct nbdk_sock_info lost;
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	if (l->state != LINK_ALIVE)
		return false;
	if (l->fd < 0 && nbdk_diag_ask(l->device->manager->diag, &l->sock, &lost) == 0)
		info = (struct tcp_info){ .tcpi_rtt = lost.rtt_usec,
					  .tcpi_total_retrans = lost.retransmits };
	else if (l->fd < 0 ||
		 getsockopt(link_server_fd(l), IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return false;
	*ret = (struct link_network){ info.tcpi_rtt, info.tcpi_total_retrans };
	return true;
}

bool link_hung_up(const struct link *l)
{
	struct pollfd p = { .fd = l->fd, .events = POLLRDHUP };

	return l->fd >= 0 && poll(&p, 1, 0) == 1;
}

/* Why did it hang up?  The first to close tells: the peer, or our own kernel's driver, which
 * gives a link up when a request on it takes longer than it allows. */
static const char *why_hung_up(struct link *l)
{
	const char *told = l->cut_why ? l->cut_why : link_relay_why(l), *tls;
	struct tcp_info info = {};
	socklen_t len = sizeof(info);
	int error = 0;
	socklen_t error_len = sizeof(error);

	if (told)
		return told;
	getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &error_len);
	tls = l->tls.in_kernel ? ktls_trust_end(l->device, ktls_end(l->fd, error)) : NULL;
	if (tls || error)
		return tls ? tls : strerror(error);
	if (getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	    (info.tcpi_state == TCP_FIN_WAIT1 || info.tcpi_state == TCP_FIN_WAIT2))
		return l->tls.in_kernel ? "given up by the kernel (a record of TLS that is none, "
			"or a request that took too long)"
			: "given up by the kernel (a request took too long)";
	return "closed by the server";
}

static int on_hang_up(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct link *l = userdata;

	l->watch = sd_event_source_disable_unref(l->watch);
	device_event(l->device, EV_LINK_DEAD,
		     &(struct event_detail){ .link = l, .text = why_hung_up(l) });
	return 0;
}

/* Data makes no event: the kernel reads it, and a hang-up is all that we ask for. */
static void watch(struct link *l)
{
	int r = sd_event_add_io(l->device->manager->event, &l->watch, l->fd, EPOLLRDHUP,
				on_hang_up, l);

	if (r < 0)
		device_log(l->device, LOG_ERR, "cannot watch a connection: %s", strerror(-r));
}

void link_alive(struct link *l)
{
	l->state = LINK_ALIVE;
	l->since_real_usec = clock_usec(CLOCK_REALTIME);
	l->alive_usec = now_usec();
	watch(l);
	fdstore_link(l);
	if (l->tls.version)
		tls_watch(l->device);
	link_relay_watch(l);
}

/* Without its descriptor: only the kernel's LINK_DEAD events tell when it dies, and which
 * link they mean is asked of the kernel. */
static bool found_dead(const struct link *l)
{
	struct nbdk_sock_info info;

	if (l->relay.there)
		return link_relay_dead(l);
	return nbdk_diag_ask(l->device->manager->diag, &l->sock, &info) == 0 && !info.alive;
}

bool link_adopt(struct link *l, const struct nbdk_sock *sock, int fd, uint64_t since)
{
	l->fd = fd;
	l->sock = *sock;
	if (fd >= 0 && !l->peer[0])
		describe_peer(l);
	if (fd >= 0 ? link_hung_up(l) : found_dead(l)) {
		link_reset(l);
		return false;
	}
	l->state = LINK_ALIVE;
	l->since_real_usec = since;
	if (fd >= 0)
		watch(l);
	fdstore_link(l);
	if (l->tls.version)
		tls_watch(l->device);
	link_relay_watch(l);
	return true;
}

void link_find_dead(struct device *d, bool all)
{
	struct manager *m = d->manager;
	unsigned index = (unsigned)d->index;

	for (size_t i = 0; d && i < d->n_links; i++) {
		struct link *l = &d->links[i];

		if (l->state != LINK_ALIVE || l->fd >= 0 || !(all || found_dead(l)))
			continue;
		device_event(d, EV_LINK_DEAD, &(struct event_detail){
			.link = l, .text = l->cut_why ? l->cut_why : l->relay.there ?
				link_relay_why(l) : "ended" });
		d = manager_find_index(m, index);
	}
}

int link_cut(struct link *l, const char *why)
{
	int r;

	l->cut_why = why;
	/* However late its relay sees it, nothing more goes to the server: but the goodbye of a
	 * detach, behind which nothing comes by another way. */
	if (l->relay.there && l->relay.server_fd >= 0 && l->device->state != STATE_DETACHING)
		shutdown(l->relay.server_fd, SHUT_RDWR);
	if (l->fd >= 0)
		return shutdown(l->fd, SHUT_RDWR) < 0 ? -errno : 0;
	if (l->relay.there)
		return link_relay_kill(l);
	r = nbdk_diag_abort(l->device->manager->diag, &l->sock);
	return r == -ENOENT ? 0 : r;
}

void link_reset(struct link *l)
{
	if (l->connector) {
		l->connector = connector_cancel(l->connector);
		manager_kick(l->device->manager);
	}
	l->watch = sd_event_source_disable_unref(l->watch);
	if (!l->device->manager->leaving)
		fdstore_drop_link(l);
	l->fd = fd_close(l->fd);
	link_relay_end(l);
	free(l->digests);
	l->digests = NULL;
	l->state = LINK_IDLE;
	l->since_real_usec = 0;
	l->alive_usec = 0;
	l->sock = (struct nbdk_sock){};
	l->peer[0] = '\0';
	l->tls = (struct link_tls){};
	l->tls_looked_usec = 0;
	l->cut_why = NULL;
}
