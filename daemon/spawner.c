/* The spawner as nbdd sees it. */
#include "daemon/spawner.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log.h"
#include "lib/util/cleanup.h"

#define SPAWNER_SOCK 3

#define ENDED "the process that makes connections has ended, and its keeper: none is made until " \
	"nbdd is started anew ('systemctl restart nbdd', or 'nbdd --replace')"

int spawner_start(const char *runtime_dir, struct spawner *ret)
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

/* Nobody has the other end any more. */
static int on_hang_up(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct spawner *s = userdata;

	log_error(ENDED);
	s->hang_up = sd_event_source_disable_unref(s->hang_up);
	s->sock = fd_close(s->sock);
	return 0;
}

void spawner_watch(struct spawner *s, sd_event *event)
{
	int r = sd_event_add_child(event, &s->end, s->keeper, WEXITED, on_keeper_end, s);

	if (r >= 0)
		r = sd_event_add_io(event, &s->hang_up, s->sock, 0, on_hang_up, s);
	if (r < 0)
		log_warning("cannot watch the process that makes connections: %s",
			    strerror(-r));
}

void spawner_stop(struct spawner *s)
{
	s->end = sd_event_source_disable_unref(s->end);
	s->hang_up = sd_event_source_disable_unref(s->hang_up);
	s->sock = fd_close(s->sock);
}

const char *spawner_warning(const struct spawner *s)
{
	return s->sock < 0 ? ENDED : NULL;
}

static int send_order(const struct spawner *s, const struct spawner_order *o, const int *fds,
		      size_t n_fds)
{
	int r = s->sock < 0 ? -EPIPE : fd_send(s->sock, o, sizeof(*o), fds, n_fds);

	if (r == -EPIPE || r == -ECONNRESET)
		return -EOWNERDEAD;
	/* To try again at once would be of no use. */
	return r == -EAGAIN ? -EBUSY : r;
}

int spawner_ask(const struct spawner *s, enum sandbox_role role, const char *what, int sock,
		int job, int kept)
{
	struct spawner_order o = { .verb = SPAWNER_MAKE, .role = role, .has_job = job >= 0,
				   .has_kept = kept >= 0 };
	int fds[SPAWNER_FDS_MAX] = { sock };
	size_t n = 1;

	if (job >= 0)
		fds[n++] = job;
	if (kept >= 0)
		fds[n++] = kept;
	snprintf(o.what, sizeof(o.what), "%s", what);
	return send_order(s, &o, fds, n);
}

int spawner_kill(const struct spawner *s, int pidfd)
{
	return send_order(s, &(struct spawner_order){ .verb = SPAWNER_KILL }, &pidfd, 1);
}
