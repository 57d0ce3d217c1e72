#include "daemon/link_relay.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/device.h"
#include "daemon/event.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/pump.h"
#include "daemon/spawner.h"
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
	int r = relay_start(m->options.spawner, m->relay_marks, l->device->name, fd, state,
			    tls_records_max(), &relay);

	if (r < 0) {
		fd_close(fd);
		return r;
	}
	l->relay = (struct link_relay){ .there = true, .pidfd = -1, .sock = relay.sock,
					.server_fd = fd };
	l->fd = relay.kernel;
	return 0;
}

static bool has_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* Its socket to the server and its messages are not to be had again. */
void link_relay_adopt(struct link *l, pid_t pid)
{
	int pidfd;

	if (pid <= 0)
		return;
	pidfd = relay_find(l->device->manager->relay_marks, pid);
	if (pidfd < 0 && pidfd != -ESRCH) {
		device_log(l->device, LOG_WARNING, "cannot look after relay process %d: %s", pid,
			   strerror(-pidfd));
		return;
	}
	l->relay = (struct link_relay){ .there = true, .pid = pid, .pidfd = -1, .sock = -1,
					.server_fd = -1 };
	if (pidfd >= 0)
		l->relay.pidfd = pidfd;
}

int link_server_fd(const struct link *l)
{
	return l->relay.there ? l->relay.server_fd : l->fd;
}

/* An nbdd that comes after us can tell which process it is. */
static void begins(struct link *l, pid_t pid)
{
	struct link_relay *r = &l->relay;
	int pidfd;

	if (r->pid)
		return;
	pidfd = relay_identify(pid, r->sock);
	if (pidfd < 0) {
		if (pidfd != -ESRCH)
			device_log(l->device, LOG_WARNING, "cannot look after relay process %d: %s",
				   pid, strerror(-pidfd));
		return;
	}
	r->pid = pid;
	r->pidfd = pidfd;
}

/* One message: its news; 0: there is none now; -EPROTO: it tells what no relay does, or a thing
 * twice; or another -errno.  It has met the server's bytes: no text is taken as it comes. */
static int take_news(struct link *l)
{
	struct link_relay *r = &l->relay;
	struct relay_message m;
	pid_t pid;
	int n = relay_receive(r->sock, &m, &pid);

	if (n <= 0)
		return n;
	if (!m.news || m.news > RELAY_KEY_USED || r->told & 1u << m.news)
		return -EPROTO;
	r->told |= 1u << m.news;
	if (m.news == RELAY_BEGINS)
		begins(l, pid);
	if (m.news == RELAY_ENDS)
		clean_text(r->why, sizeof(r->why), m.why, strnlen(m.why, sizeof(m.why)));
	return (int)m.news;
}

static int on_death(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct link *l = userdata;

	l->relay.death = sd_event_source_disable_unref(l->relay.death);
	device_event(l->device, EV_LINK_DEAD, &(struct event_detail){
		.link = l, .text = l->cut_why ? l->cut_why : link_relay_why(l) });
	return 0;
}

static void on_key_used(struct link *l)
{
	device_log(l->device, LOG_NOTICE, "one TLS key was used for %llu records: connecting "
		   "anew for another", (unsigned long long)tls_records_max());
	link_cut(l, "its TLS key was used for long enough");
}

/* What it has put into its socket besides goes with it. */
static void on_junk(struct link *l)
{
	device_log(l->device, LOG_ERR, "relay process %d sent what no relay does (expected once "
		   "that its key was used up, and once that it ends), and is killed: the server "
		   "may have taken it over", l->relay.pid);
	(void)link_relay_kill(l);
	link_cut(l, "its relay process sent what no relay does");
}

static int on_news(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct link *l = userdata;
	int news = take_news(l);

	if (news == RELAY_KEY_USED)
		on_key_used(l);
	else if (news == -EPROTO)
		on_junk(l);
	if (news <= 0)
		l->relay.news = sd_event_source_disable_unref(l->relay.news);
	return 0;
}

static void end_wait(struct link_relay *r)
{
	r->news = sd_event_source_disable_unref(r->news);
	r->late = sd_event_source_disable_unref(r->late);
}

static int on_begin(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct link *l = userdata;

	end_wait(&l->relay);
	(void)take_news(l);
	link_relayed(l, l->relay.pid ? 0 : -ECHILD);
	return 0;
}

static int on_no_begin(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct link *l = userdata;

	end_wait(&l->relay);
	link_relayed(l, -ETIMEDOUT);
	return 0;
}

int link_relay_await(struct link *l)
{
	sd_event *event = l->device->manager->event;
	struct link_relay *relay = &l->relay;
	int r = sd_event_add_io(event, &relay->news, relay->sock, EPOLLIN, on_begin, l);

	if (r >= 0)
		r = sd_event_add_time_relative(event, &relay->late, CLOCK_BOOTTIME,
					       l->device->keys.connect_timeout_usec,
					       USEC_PER_MSEC, on_no_begin, l);
	return r;
}

void link_relay_watch(struct link *l)
{
	sd_event *event = l->device->manager->event;
	struct link_relay *relay = &l->relay;
	int r = 0;

	if (!relay->there)
		return;
	if (relay->sock >= 0)
		r = sd_event_add_io(event, &relay->news, relay->sock, EPOLLIN, on_news, l);
	if (r >= 0 && l->fd < 0)
		r = sd_event_add_io(event, &relay->death, relay->pidfd, EPOLLIN, on_death, l);
	if (r < 0)
		device_log(l->device, LOG_ERR, "cannot listen to a relay: %s", strerror(-r));
}

const char *link_relay_why(struct link *l)
{
	struct link_relay *r = &l->relay;

	if (!r->there)
		return NULL;
	while (r->sock >= 0 && !r->why[0] && take_news(l) > 0)
		;
	return r->why[0] ? r->why : r->sock < 0 ? "its relay process has ended"
		: "the relay process died";
}

/* ---- the end ---- */

struct leaving {
	struct spawner *spawner;
	int pidfd;
	sd_event_source *timer;
};

bool link_relay_dead(const struct link *l)
{
	return l->relay.there && (l->relay.pidfd < 0 || has_ended(l->relay.pidfd));
}

static int kill_relay(struct spawner *spawner, int pidfd)
{
	return pidfd < 0 ? 0 : spawner_kill(spawner, pidfd);
}

int link_relay_kill(const struct link *l)
{
	if (!l->relay.there)
		return -EOPNOTSUPP;
	return kill_relay(l->device->manager->options.spawner, l->relay.pidfd);
}

static int on_late(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct leaving *l = userdata;

	if (!has_ended(l->pidfd)) {
		log_warning("a relay did not end when it should have: killed");
		(void)kill_relay(l->spawner, l->pidfd);
	}
	sd_event_source_disable_unref(l->timer);
	fd_close(l->pidfd);
	free(l);
	return 0;
}

static void see_off(const struct manager *m, int pidfd)
{
	struct leaving *l = pidfd < 0 || has_ended(pidfd) ? NULL : calloc(1, sizeof(*l));

	if (l) {
		l->spawner = m->options.spawner;
		l->pidfd = pidfd;
		if (sd_event_add_time_relative(m->event, &l->timer, CLOCK_BOOTTIME, END_USEC,
					       USEC_PER_SEC, on_late, l) >= 0)
			return;
		free(l);
	}
	fd_close(pidfd);
}

void link_relay_end(struct link *l)
{
	struct link_relay *r = &l->relay;

	if (!r->there)
		return;
	end_wait(r);
	sd_event_source_disable_unref(r->death);
	fd_close(r->sock);
	fd_close(r->server_fd);
	/* A device that somebody takes over needs it still. */
	if (l->device->manager->leaving)
		fd_close(r->pidfd);
	else
		see_off(l->device->manager, r->pidfd);
	*r = (struct link_relay){};
}
