/* The listening socket and what all clients share: limits and the log. */
#include "daemon/proto/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/util/cleanup.h"
#include "lib/util/fd.h"
#include "lib/util/rights.h"

static unsigned log_room(struct varlink_server *s)
{
	uint64_t minute = now_usec() / USEC_PER_MINUTE;

	if (minute != s->log_minute) {
		s->log_minute = minute;
		s->log_lines = 0;
	}
	return VARLINK_LOGS_PER_MINUTE - s->log_lines;
}

/* Any local user can connect and misbehave in a loop, so lines are rationed. */
void varlink_server_log(struct varlink_server *s, const char *format, ...)
{
	char text[512];
	va_list args;
	size_t n;

	if (!s->log)
		return;
	if (!log_room(s)) {
		s->log_dropped++;
		return;
	}
	s->log_lines++;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	n = strlen(text);
	if (s->log_dropped)
		snprintf(text + n, sizeof(text) - n, " (%u such lines left out)",
			 s->log_dropped);
	s->log_dropped = 0;
	s->log(text, s->log_userdata);
}

void varlink_server_set_log(struct varlink_server *s,
			    void (*log)(const char *text, void *userdata), void *userdata)
{
	s->log = log;
	s->log_userdata = userdata;
}

bool varlink_server_allows(const struct varlink_server *s, uid_t uid, size_t total)
{
	return total <= VARLINK_TOTAL_MAX - (uid ? VARLINK_TOTAL_ROOT : 0);
}

/* Say no on a socket that is not going to be served. */
static void refuse(struct varlink_server *s, int fd)
{
	char text[256];
	int n = snprintf(text, sizeof(text),
			 "{\"error\":\"%s.Busy\",\"parameters\":{\"message\":"
			 "\"%zu clients are connected already; try again later\"}}",
			 s->iface->name, s->n_connections);

	if (n > 0 && (size_t)n < sizeof(text))
		/* An empty socket buffer takes this at once; if not, closing says it. */
		(void)!send(fd, text, (size_t)n + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	varlink_server_log(s, "control socket: refused a client: %zu are connected",
			   s->n_connections);
}

void varlink_server_set_disposal(struct varlink_server *s,
				 const struct varlink_disposal *disposal)
{
	s->disposal = *disposal;
}

/* Sockets that wait to be closed. */
static size_t n_closing(const struct varlink_server *s)
{
	return s->disposal.take ? s->disposal.max - s->disposal.room(s->disposal.userdata) : 0;
}

void varlink_server_close(struct varlink_server *s, int fd)
{
	if (fd < 0 || rights_drain(fd) || !s->disposal.take)
		fd_close(fd);
	else
		s->disposal.take(fd, s->disposal.userdata);
}

static void admit(struct varlink_server *s, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	size_t max = VARLINK_CLIENTS_MAX;

	rights_refuse(fd);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
		varlink_server_close(s, fd);
		return;
	}
	if (peer.uid)
		max -= MIN(VARLINK_CLIENTS_ROOT + n_closing(s), max);
	if (s->n_connections >= max) {
		refuse(s, fd);
		varlink_server_close(s, fd);
		return;
	}
	if (varlink_connection_new(s, fd, &peer) < 0)
		varlink_server_close(s, fd);
}

static int listen_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct varlink_server *s = userdata;

	return sd_event_source_set_enabled(s->listen_io, SD_EVENT_ON);
}

/* Out of descriptors or memory: the waiting client would wake the loop for ever. */
static int pause_listening(struct varlink_server *s, const char *why)
{
	int r = sd_event_source_set_enabled(s->listen_io, SD_EVENT_OFF);

	varlink_server_log(s, "control socket: accept: %s", why);
	if (r < 0)
		return r;
	r = sd_event_source_set_time_relative(s->listen_timer, USEC_PER_SEC);
	return r < 0 ? r : sd_event_source_set_enabled(s->listen_timer, SD_EVENT_ONESHOT);
}

static int on_listen(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct varlink_server *s = userdata;
	int client;

	/* Each that is accepted may have to be closed so. */
	if (s->disposal.take &&
	    s->disposal.room(s->disposal.userdata) <= s->n_connections)
		return pause_listening(s, "too many clients have sent descriptors, which "
				       "cannot be closed now");
	client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client >= 0)
		admit(s, client);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		return pause_listening(s, strerror(errno));
	return 0;
}

int varlink_server_new(sd_event *event, int listen_fd,
		       const struct varlink_interface *iface, void *userdata,
		       struct varlink_server **ret)
{
	struct varlink_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct varlink_server){
		.event = sd_event_ref(event), .listen_fd = -1,
		.iface = iface, .userdata = userdata,
	};
	LIST_INIT(&s->connections);
	rights_refuse(listen_fd);
	r = fd_set_nonblock(listen_fd, true);
	if (r >= 0)
		r = sd_event_add_io(event, &s->listen_io, listen_fd, EPOLLIN, on_listen,
				    s);
	if (r >= 0)
		r = sd_event_source_set_priority(s->listen_io, VARLINK_PRIORITY_ROOT);
	if (r >= 0)
		r = sd_event_add_time(event, &s->listen_timer, CLOCK_MONOTONIC, 0, 0,
				      listen_again, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->listen_timer, SD_EVENT_OFF);
	if (r < 0) {
		varlink_server_free(s);
		return r;
	}
	s->listen_fd = listen_fd;
	*ret = s;
	return 0;
}

int varlink_server_fd(const struct varlink_server *s)
{
	return s->listen_fd;
}

void varlink_server_free(struct varlink_server *s)
{
	if (!s)
		return;
	sd_event_source_disable_unref(s->listen_io);
	sd_event_source_disable_unref(s->listen_timer);
	while (!LIST_EMPTY(&s->connections))
		varlink_connection_free(LIST_FIRST(&s->connections));
	fd_close(s->listen_fd);
	sd_event_unref(s->event);
	free(s);
}
