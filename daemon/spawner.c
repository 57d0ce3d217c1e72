/* The spawner as nbdd sees it. */
#include "daemon/spawner.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/service.h"
#include "lib/util/cleanup.h"

#define SERVICE "connect"

#define ENDED "the process that makes connections has ended, and its keeper: none is made until " \
	"nbdd is started anew ('systemctl restart nbdd', or 'nbdd --replace')"
#define NOT_THERE "nbdd-connect.socket cannot be reached, and so no connection is made: " \
	"'systemctl start nbdd-connect.socket'"

static int fork_both(const char *runtime_dir, struct spawner *ret)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		if (dup2(pair[1], SPAWNER_SOCK) < 0 || close_range(SPAWNER_SOCK + 1, ~0u, 0) < 0)
			_exit(1);
		spawner_keep(SPAWNER_SOCK, runtime_dir);
	}
	fd_close(pair[1]);
	if (pid < 0) {
		fd_close(pair[0]);
		return -errno;
	}
	/* Nothing waits for it: an order that does not fit now is refused. */
	fd_set_nonblock(pair[0], true);
	*ret = (struct spawner){ .sock = pair[0], .keeper = pid };
	return 0;
}

int spawner_start(const char *runtime_dir, struct spawner *ret)
{
	if (geteuid() == 0)
		return fork_both(runtime_dir, ret);
	*ret = (struct spawner){ .sock = -1, .runtime_dir = runtime_dir };
	return 0;
}

/* The spawner goes on, for as long as nobody kills that, too. */
static int on_keeper_end(sd_event_source *source, const siginfo_t *si, void *userdata)
{
	struct spawner *s = userdata;

	s->end = sd_event_source_disable_unref(s->end);
	if (s->sock >= 0)
		log_warning("the keeper of the process that makes connections has ended: when that "
			    "is killed, too, there is no other until nbdd is started anew");
	return 0;
}

static void hang_up(struct spawner *s)
{
	s->hang_up = sd_event_source_disable_unref(s->hang_up);
	s->sock = fd_close(s->sock);
}

/* Nobody has the other end any more. */
static int on_hang_up(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct spawner *s = userdata;

	hang_up(s);
	if (s->runtime_dir)
		log_notice("nbdd-connect.service has ended, or its spawner: the next connection "
			   "that is to be made starts another");
	else
		log_error(ENDED);
	return 0;
}

static int watch_sock(struct spawner *s)
{
	return sd_event_add_io(s->event, &s->hang_up, s->sock, 0, on_hang_up, s);
}

/* Without a wait: systemd listens, and starts the service for it. */
static int find_service(struct spawner *s)
{
	int r = service_connect(s->runtime_dir, SERVICE);

	if (r >= 0) {
		s->sock = r;
		r = watch_sock(s);
	}
	if (r < 0 && !s->error)
		log_error("cannot connect to %s-" SERVICE " (%s): no connection is made until nbdd "
			  "can; 'systemctl start nbdd-connect.socket'", s->runtime_dir,
			  strerror(-r));
	if (r < 0)
		hang_up(s);
	else if (s->error)
		log_notice("%s-" SERVICE " can be reached again", s->runtime_dir);
	s->error = MIN(r, 0);
	return s->error ? -ENOTCONN : 0;
}

void spawner_watch(struct spawner *s, sd_event *event)
{
	int r;

	s->event = event;
	if (s->runtime_dir) {
		(void)find_service(s);
		return;
	}
	r = sd_event_add_child(event, &s->end, s->keeper, WEXITED, on_keeper_end, s);
	if (r >= 0)
		r = watch_sock(s);
	if (r < 0)
		log_warning("cannot watch the process that makes connections: %s",
			    strerror(-r));
}

void spawner_stop(struct spawner *s)
{
	s->end = sd_event_source_disable_unref(s->end);
	hang_up(s);
}

const char *spawner_warning(const struct spawner *s)
{
	/* Whether its socket is there is seen before an order is to go to it. */
	if (s->runtime_dir)
		return s->sock >= 0 || service_is_there(s->runtime_dir, SERVICE, s->error) ?
			NULL : NOT_THERE;
	return s->sock < 0 ? ENDED : NULL;
}

static int send_once(const struct spawner *s, const struct spawner_order *o, const int *fds,
		     size_t n_fds)
{
	int r = s->sock < 0 ? -EPIPE : fd_send(s->sock, o, sizeof(*o), fds, n_fds);

	if (r == -EPIPE || r == -ECONNRESET)
		return -EOWNERDEAD;
	/* To try again at once would be of no use. */
	return r == -EAGAIN ? -EBUSY : r;
}

/* A service that has ended may have another by now. */
static int send_order(struct spawner *s, const struct spawner_order *o, const int *fds,
		      size_t n_fds)
{
	int r = send_once(s, o, fds, n_fds);

	if (r != -EOWNERDEAD || !s->runtime_dir)
		return r;
	hang_up(s);
	r = find_service(s);
	return r < 0 ? r : send_once(s, o, fds, n_fds);
}

int spawner_ask(struct spawner *s, enum sandbox_role role, const char *what, int sock,
		int job, int kept)
{
	struct spawner_order o = { .verb = SPAWNER_MAKE, .role = role, .has_job = job >= 0,
				   .has_kept = kept >= 0, .version = NBDD_VERSION };
	int fds[SPAWNER_FDS_MAX] = { sock };
	size_t n = 1;

	if (job >= 0)
		fds[n++] = job;
	if (kept >= 0)
		fds[n++] = kept;
	snprintf(o.what, sizeof(o.what), "%s", what);
	return send_order(s, &o, fds, n);
}

int spawner_kill(struct spawner *s, int pidfd)
{
	struct spawner_order o = { .verb = SPAWNER_KILL, .version = NBDD_VERSION };

	return send_order(s, &o, &pidfd, 1);
}
