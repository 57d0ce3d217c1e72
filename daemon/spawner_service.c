/* `nbdd --serve=connections`: makes connectors, relays and resolvers for an nbdd that is not
 * root, as a user who is neither.  Each client has a spawner of its own, a fork; when that is
 * killed, the client connects anew.  All end with this process, but the relays. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/power.h"
#include "daemon/service.h"
#include "daemon/spawner.h"
#include "lib/util/cleanup.h"

struct serving {
	struct service service;
	struct sandbox *sandbox;
	sd_event *event;
	sd_event_source *listen;
	unsigned n_clients;
};

struct client {
	struct serving *server;
	sd_event_source *end;
};

/* Others wait in the queue of the socket while there are as many as may be. */
static void take_more(struct serving *s)
{
	sd_event_source_set_enabled(s->listen, s->n_clients < SPAWNER_CLIENTS_MAX
				    ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_end(sd_event_source *source, const siginfo_t *si, void *userdata)
{
	struct client *c = userdata;
	struct serving *s = c->server;

	if (si->si_code != CLD_EXITED)
		log_warning("a spawner was killed (signal %d): its client has to connect anew",
			    si->si_status);
	sd_event_source_disable_unref(c->end);
	free(c);
	s->n_clients--;
	take_more(s);
	return 0;
}

static int add_client(struct serving *s, int sock)
{
	struct client *c = calloc(1, sizeof(*c));
	pid_t pid = c ? spawner_fork(sock, s->sandbox, true) : -1;
	int r = pid < 0 ? -errno : 0;

	if (r >= 0) {
		c->server = s;
		r = sd_event_add_child(s->event, &c->end, pid, WEXITED, on_end, c);
		if (r < 0)
			kill(pid, SIGKILL);
	}
	if (r < 0) {
		free(c);
		return r;
	}
	s->n_clients++;
	take_more(s);
	return 0;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct serving *s = userdata;
	_cleanup_close_ int sock = service_accept(&s->service);
	int r = sock < 0 ? sock : add_client(s, sock);

	if (r < 0 && sock != -EPERM && sock != -EAGAIN)
		log_error("cannot serve a client: %s", strerror(-r));
	return 0;
}

static int begin(struct serving *s)
{
	sigset_t mask;
	int r;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	r = sd_event_new(&s->event);
	if (r >= 0)
		r = sd_event_add_signal(s->event, NULL, SIGTERM, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(s->event, NULL, SIGINT, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_io(s->event, &s->listen, s->service.listen, EPOLLIN, on_client,
				    s);
	return r;
}

/* As nbdd itself does, and its spawner: SECURITY.md. */
static int give_up_power(struct serving *s)
{
	int r;

	power_hold_memory();
	/* Reads a file at first use, which children that say a date must not. */
	tzset();
	r = sandbox_new(NULL, &s->sandbox);
	return r < 0 ? r : power_drop_to(0, s->sandbox);
}

int spawner_serve(const struct manager_options *o)
{
	struct serving s = {};
	int r;

	if (geteuid() == 0) {
		log_error("--serve=connections is for a user without power, such as nbdd, not for "
			  "root, whose nbdd needs no service");
		return -EPERM;
	}
	r = service_open(&s.service);
	if (r >= 0)
		r = give_up_power(&s);
	if (r >= 0)
		r = begin(&s);
	if (r >= 0) {
		sd_notify(false, "READY=1");
		r = sd_event_loop(s.event);
	}
	if (r < 0)
		log_error("cannot make connections: %s", strerror(-r));
	return r;
}
