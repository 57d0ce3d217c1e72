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
#include "daemon/service.h"
#include "lib/util/cleanup.h"

#define RUNNER_SOCK 3
#define SERVICE "programs"

/* nbdd has given up the power to execute, and so cannot start it again. */
#define ENDED "the process that runs the programs of on-event has ended: none runs until nbdd " \
	"is started anew ('systemctl restart nbdd', or 'nbdd --replace')"
#define NOT_THERE "nbdd-programs.socket is not there, and so no program of on-event runs: " \
	"'systemctl start nbdd-programs.socket'"
#define NOT_IN_FILES "on-event is run only as nbdd.conf or nbdtab has it for this device, which " \
	"is not as it was attached with: put it there"
#define UNWARRANTED "on-event does not run: an nbdd that is not root has said what to run, and " \
	"neither nbdd.conf nor nbdtab has the same for this device: put it there"

/* ---- the process ------------------------------------------------------------------- */

static int set_room(int sock)
{
	int size = PROGRAMS_SOCKET_BYTES;

	return setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0 ? -errno : 0;
}

static int fork_it(struct programs *p)
{
	int pair[2];

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
	return set_room(p->sock);
}

int programs_start(const char *runtime_dir, struct programs *p)
{
	if (geteuid() == 0)
		return fork_it(p);
	p->runtime_dir = runtime_dir;
	return 0;
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
	int r = p->runtime_dir ? 0 : sd_event_add_child(event, &p->end, p->pid, WEXITED, on_end,
							p);

	if (r < 0)
		log_warning("cannot watch the process of on-event: %s", strerror(-r));
}

void programs_stop(struct programs *p)
{
	p->end = sd_event_source_disable_unref(p->end);
	p->sock = fd_close(p->sock);
}

/* ---- orders ------------------------------------------------------------------------ */

static int send_to(int sock, const void *order, size_t size)
{
	return send(sock, order, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int tell_fork(struct programs *p, const struct device *d, const struct news *n)
{
	struct program_order o = { .news = *n };

	snprintf(o.path, sizeof(o.path), "%s", d->keys.on_event);
	snprintf(o.user, sizeof(o.user), "%s", d->keys.on_event_user ?: "");
	return p->sock < 0 ? -EPIPE : send_to(p->sock, &o, sizeof(o));
}

/* When it has ended since the last order, a new connection starts the next one. */
static int tell_service(struct programs *p, const struct news *n)
{
	int r = p->sock < 0 ? -EPIPE : send_to(p->sock, n, sizeof(*n));

	if (r == 0 || r == -EAGAIN)
		return r;
	p->sock = fd_close(p->sock);
	r = service_connect(p->runtime_dir, SERVICE);
	p->error = r < 0 ? r : 0;
	if (r < 0)
		return r == -EAGAIN ? -EBUSY : r;
	p->sock = r;
	r = set_room(p->sock);
	return r == 0 ? send_to(p->sock, n, sizeof(*n)) : r;
}

static void count_dropped(struct programs *p, const struct device *d, int r)
{
	if (p->dropped++)
		return;
	if (p->runtime_dir && r != -EAGAIN)
		device_log(d, LOG_WARNING, "on-event: cannot connect to %s-" SERVICE " (%s): this "
			   "program and those that follow are left out until it can; 'systemctl "
			   "start nbdd-programs.socket'", p->runtime_dir, strerror(-r));
	else
		device_log(d, LOG_WARNING, "on-event: too many programs wait, or hang: this one "
			   "and those that follow are left out");
}

static bool same(const char *a, const char *b)
{
	return strcmp(a ?: "", b ?: "") == 0;
}

/* As they were read last: false before they are. */
static bool in_files(const struct device *d)
{
	const struct conf *conf = d->manager->conf;
	const struct conf_device *c = conf ? conf_find_named(conf, d->name) : NULL;

	return c && same(c->keys.on_event, d->keys.on_event) &&
	       same(c->keys.on_event_user, d->keys.on_event_user);
}

static bool may_run(const struct device *d)
{
	return !d->unwarranted || in_files(d);
}

void programs_tell(struct device *d, const struct news *n)
{
	struct programs *p = d->manager->options.programs;
	int r;

	if (!d->keys.on_event || !p || (!p->runtime_dir && !may_run(d)))
		return;
	r = p->runtime_dir ? tell_service(p, n) : tell_fork(p, d, n);
	if (r < 0) {
		count_dropped(p, d, r);
		return;
	}
	if (p->dropped)
		log_warning("on-event: %" PRIu64 " programs were left out", p->dropped);
	p->dropped = 0;
}

/* ---- what would be wrong ----------------------------------------------------------- */

const char *programs_warning(const struct device *d)
{
	const struct programs *p = d->manager->options.programs;

	if (!d->keys.on_event)
		return NULL;
	if (!p || (!p->runtime_dir && p->sock < 0))
		return ENDED;
	if (!p->runtime_dir)
		return may_run(d) ? NULL : UNWARRANTED;
	if (d->manager->conf && !in_files(d))
		return NOT_IN_FILES;
	return p->sock >= 0 || service_is_there(p->runtime_dir, SERVICE, p->error) ?
		NULL : NOT_THERE;
}

void programs_check(const struct manager *m)
{
	const struct programs *p = m->options.programs;

	for (size_t i = 0; i < m->n_devices && p && !p->runtime_dir; i++)
		if (m->devices[i]->keys.on_event && !may_run(m->devices[i]))
			device_log(m->devices[i], LOG_WARNING, UNWARRANTED);
}
