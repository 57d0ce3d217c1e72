#include "daemon/link_relay.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/device.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/pump.h"
#include "daemon/tls_watch.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"

/* It gives both sides some seconds to end: longer than that it only takes when it is not
 * what it was. */
#define END_USEC (2 * PUMP_LINGER_USEC)

int link_relay_start(struct link *l, int fd, const struct nbdd_tls_state *state)
{
	const struct manager *m = l->device->manager;
	struct relay relay;
	int r = relay_start(m->event, m->sandbox, l->device->name, fd, state, tls_records_max(),
			    &relay);

	if (r < 0) {
		fd_close(fd);
		return r;
	}
	l->relay = (struct link_relay){ .pid = relay.pid, .pidfd = relay.pidfd,
					.sock = relay.sock, .server_fd = fd };
	l->fd = relay.kernel;
	return 0;
}

int link_server_fd(const struct link *l)
{
	return l->relay.pid ? l->relay.server_fd : l->fd;
}

/* One message: its news, or 0 for none.  It has met the server's bytes: no text is taken as
 * it comes. */
static uint32_t take_news(struct link_relay *r)
{
	struct relay_message m;
	ssize_t n = recv(r->sock, &m, sizeof(m), MSG_DONTWAIT);

	if (n != sizeof(m))
		return 0;
	if (m.news == RELAY_ENDS)
		clean_text(r->why, sizeof(r->why), m.why, strnlen(m.why, sizeof(m.why)));
	return m.news;
}

static int on_news(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct link *l = userdata;
	struct link_relay *r = &l->relay;

	if (take_news(r) == RELAY_KEY_USED) {
		device_log(l->device, LOG_NOTICE, "one TLS key was used for %llu records: "
			   "connecting anew for another",
			   (unsigned long long)tls_records_max());
		link_cut(l, "its TLS key was used for long enough");
	}
	/* The rest is asked for when the link hangs up. */
	r->news = sd_event_source_disable_unref(r->news);
	return 0;
}

void link_relay_watch(struct link *l)
{
	int r;

	if (!l->relay.pid)
		return;
	r = sd_event_add_io(l->device->manager->event, &l->relay.news, l->relay.sock, EPOLLIN,
			    on_news, l);
	if (r < 0)
		device_log(l->device, LOG_ERR, "cannot listen to a relay: %s", strerror(-r));
}

const char *link_relay_why(struct link *l)
{
	struct link_relay *r = &l->relay;

	if (!r->pid)
		return NULL;
	while (!r->why[0] && take_news(r))
		;
	return r->why[0] ? r->why : "the relay process died";
}

/* ---- the end ---- */

struct leaving {
	int pidfd;
	sd_event_source *timer;
};

static bool has_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static int on_late(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct leaving *l = userdata;

	if (!has_ended(l->pidfd)) {
		log_warning("a relay did not end when it should have: killed");
		syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0);
	}
	sd_event_source_disable_unref(l->timer);
	fd_close(l->pidfd);
	free(l);
	return 0;
}

static void see_off(sd_event *event, int pidfd)
{
	struct leaving *l = has_ended(pidfd) ? NULL : calloc(1, sizeof(*l));

	if (l) {
		l->pidfd = pidfd;
		if (sd_event_add_time_relative(event, &l->timer, CLOCK_BOOTTIME, END_USEC,
					       USEC_PER_SEC, on_late, l) >= 0)
			return;
		free(l);
	}
	fd_close(pidfd);
}

void link_relay_end(struct link *l)
{
	struct link_relay *r = &l->relay;

	if (!r->pid)
		return;
	sd_event_source_disable_unref(r->news);
	fd_close(r->sock);
	fd_close(r->server_fd);
	see_off(l->device->manager->event, r->pidfd);
	*r = (struct link_relay){};
}
