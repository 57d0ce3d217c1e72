#include "daemon/programs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/device.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "lib/util/cleanup.h"

#define RUNNER_SOCK 3

/* nbdd has given up the power to execute, and so cannot start it again. */
#define ENDED "the process that runs the programs of on-event has ended: none runs until nbdd " \
	"is started anew ('systemctl restart nbdd', or 'nbdd --replace')"

int programs_start(struct programs *p)
{
	int pair[2], size = PROGRAMS_SOCKET_BYTES;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	p->pid = fork();
	if (p->pid == 0) {
		/* What nbdd was given by systemd are devices' sockets, too. */
		if (dup2(pair[1], RUNNER_SOCK) < 0 || close_range(RUNNER_SOCK + 1, ~0u, 0) < 0)
			_exit(1);
		program_runner(RUNNER_SOCK);
	}
	fd_close(pair[1]);
	if (p->pid < 0) {
		fd_close(pair[0]);
		return -errno;
	}
	p->sock = pair[0];
	return setsockopt(p->sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0 ? -errno : 0;
}

static int on_end(sd_event_source *s, const siginfo_t *si, void *userdata)
{
	struct programs *p = userdata;

	log_error(ENDED);
	p->sock = fd_close(p->sock);
	p->end = sd_event_source_disable_unref(p->end);
	return 0;
}

void programs_watch(struct programs *p, sd_event *event)
{
	int r = sd_event_add_child(event, &p->end, p->pid, WEXITED, on_end, p);

	if (r < 0)
		log_warning("cannot watch the process of on-event: %s", strerror(-r));
}

void programs_stop(struct programs *p)
{
	p->end = sd_event_source_disable_unref(p->end);
	p->sock = fd_close(p->sock);
}

static void count_dropped(struct programs *p, const struct device *d)
{
	if (p->dropped++ == 0)
		device_log(d, LOG_WARNING, "on-event: too many programs wait, or hang: this one "
			   "and those that follow are left out");
}

void programs_tell(struct device *d, const struct news *n)
{
	struct programs *p = d->manager->options.programs;
	struct program_order o = { .news = *n };

	if (!d->keys.on_event || !p)
		return;
	snprintf(o.path, sizeof(o.path), "%s", d->keys.on_event);
	snprintf(o.user, sizeof(o.user), "%s", d->keys.on_event_user ?: "");
	snprintf(o.event, sizeof(o.event), "%s", news_name(n->kind));
	if (p->sock < 0 || send(p->sock, &o, sizeof(o), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		count_dropped(p, d);
		return;
	}
	if (p->dropped)
		log_warning("on-event: %" PRIu64 " programs were left out", p->dropped);
	p->dropped = 0;
}

const char *programs_warning(const struct device *d)
{
	const struct programs *p = d->manager->options.programs;

	return d->keys.on_event && (!p || p->sock < 0) ? ENDED : NULL;
}
