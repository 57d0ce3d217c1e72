/* The process: takes orders, forks, kills, reaps. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/child.h"
#include "daemon/connector_child.h"
#include "daemon/log.h"
#include "daemon/newroot.h"
#include "daemon/power.h"
#include "daemon/relay.h"
#include "daemon/resolver_child.h"
#include "daemon/spawner.h"
#include "lib/util/cleanup.h"

struct process {
	sd_event *event;
	struct sandbox *sandbox;
	unsigned n_children;		/* without relays */
};

/* One child.  A relay has no socket here: it outlives nbdd. */
struct spawned {
	struct process *process;
	pid_t pid;
	char what[SPAWNER_NAME_MAX + 1];
	int sock;			/* a duplicate of its own */
	int kept;			/* the same of what it keeps, by which nbdd sees its end */
	sd_event_source *hang_up, *reaper;
};

/* What a role is given, and does; the same in its child as struct child_spec says. */
static const struct {
	bool job, lasting;
	int (*prepare)(void *arg);
	void (*settle)(int kept, void *arg);
	void (*run)(int sock, int kept, void *arg);
} roles[SANDBOX_ROLES] = {
	[SANDBOX_DIAL] = { .job = true, .prepare = connector_prepare, .run = connector_main },
	[SANDBOX_RELAY] = { .lasting = true, .prepare = relay_prepare, .settle = relay_settle,
			    .run = relay_main },
	[SANDBOX_RESOLVE] = { .job = true, .prepare = resolver_prepare, .run = resolver_main },
};

static int on_hang_up(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct spawned *c = userdata;

	c->hang_up = sd_event_source_disable_unref(c->hang_up);
	kill(c->pid, SIGKILL);
	return 0;
}

static void spawned_free(struct spawned *c)
{
	sd_event_source_disable_unref(c->hang_up);
	sd_event_source_disable_unref(c->reaper);
	fd_close(c->sock);
	fd_close(c->kept);
	free(c);
}

/* Now nbdd may see the end of the pair. */
static int on_exit_(sd_event_source *s, const siginfo_t *si, void *userdata)
{
	struct spawned *c = userdata;

	child_log_end(c->what, si);
	if (c->sock >= 0)
		c->process->n_children--;
	spawned_free(c);
	return 0;
}

static int watch(struct spawned *c)
{
	int r = sd_event_add_child(c->process->event, &c->reaper, c->pid, WEXITED, on_exit_, c);

	if (r >= 0 && c->sock >= 0)
		r = sd_event_add_io(c->process->event, &c->hang_up, c->sock, EPOLLRDHUP,
				    on_hang_up, c);
	return r;
}

static void make(struct process *p, const struct spawner_order *o, const int *fds)
{
	size_t next = 1;
	struct child_given given = {
		.job = o->has_job ? fds[next++] : -1, .kept = o->has_kept ? fds[next] : -1,
		.sandbox = p->sandbox,
	};
	struct child_spec spec = {
		.what = o->what, .sandbox = p->sandbox, .role = o->role,
		.prepare = roles[o->role].prepare, .settle = roles[o->role].settle,
		.run = roles[o->role].run, .arg = &given, .lasting = roles[o->role].lasting,
	};
	struct spawned *c = calloc(1, sizeof(*c));
	pid_t parent = getpid();

	if (!c)
		return;
	*c = (struct spawned){ .process = p, .sock = -1, .kept = -1 };
	memcpy(c->what, o->what, sizeof(c->what));
	c->pid = fork();
	if (c->pid == 0)
		child_main(&spec, fds[0], parent);
	if (c->pid < 0) {
		log_error("cannot make the process '%s': %s", o->what, strerror(errno));
		free(c);
		return;
	}
	if (!spec.lasting) {
		c->sock = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
		if (given.kept >= 0)
			c->kept = fcntl(given.kept, F_DUPFD_CLOEXEC, 0);
		p->n_children++;
	}
	if ((!spec.lasting && (c->sock < 0 || (given.kept >= 0 && c->kept < 0))) || watch(c) < 0) {
		log_error("cannot watch the process '%s': it is ended", o->what);
		kill(c->pid, SIGKILL);
	}
}

/* It stands in the log and in `ps`. */
static bool is_name(const char name[static SPAWNER_NAME_MAX + 1])
{
	size_t n = 0;

	while (n <= SPAWNER_NAME_MAX && name[n] >= ' ' && name[n] != '\x7f')
		n++;
	return n <= SPAWNER_NAME_MAX && name[n] == '\0';
}

/* From nbdd alone; but whoever has taken that over is to get no further by it. */
static bool valid(const struct process *p, const struct spawner_order *o, ssize_t n,
		  size_t n_fds)
{
	if (n != sizeof(*o) || !is_name(o->what) || !is_name(o->version))
		return false;
	if (o->verb == SPAWNER_KILL)
		return n_fds == 1;
	return o->verb == SPAWNER_MAKE && o->role < SANDBOX_ROLES && roles[o->role].run &&
	       o->has_job == roles[o->role].job && o->has_kept <= 1 &&
	       n_fds == 1 + o->has_job + o->has_kept &&
	       (roles[o->role].lasting || p->n_children < SPAWNER_CHILDREN_MAX);
}

/* It may be of an nbdd that had another user for its children. */
static void end_process(int pidfd)
{
	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		log_error("cannot end a relay: %s", strerror(errno));
}

static int on_order(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	int fds[SPAWNER_FDS_MAX] = { -1, -1, -1 };
	size_t n_fds = SPAWNER_FDS_MAX;
	struct process *p = userdata;
	struct spawner_order o;
	ssize_t n = fd_recv(fd, &o, sizeof(o), fds, &n_fds);

	if (n == 0 || n == -ECONNRESET)
		return sd_event_exit(p->event, 0);
	if (n == -EAGAIN)
		return 0;
	if (!valid(p, &o, n, n_fds))
		log_error("an order to make a process is not as expected: left out");
	else if (strcmp(o.version, NBDD_VERSION) != 0)
		log_error("nbdd %s asks for a process, and this is of version " NBDD_VERSION
			  ": left out; 'systemctl restart nbdd-connect' or 'nbdd --replace'",
			  o.version);
	else if (o.verb == SPAWNER_MAKE)
		make(p, &o, fds);
	else
		end_process(fds[0]);
	for (size_t i = 0; i < n_fds; i++)
		fd_close(fds[i]);
	return 0;
}

static _noreturn_ void work(int sock, struct sandbox *sandbox)
{
	struct process p = { .sandbox = sandbox };
	int r;

	power_lock_memory();
	/* Who sees it by this name finds it ready. */
	prctl(PR_SET_NAME, "spawner");
	r = sandbox_forked(sandbox);
	if (r >= 0)
		r = sd_event_new(&p.event);
	if (r >= 0)
		r = newroot_watch(p.event);
	if (r >= 0)
		r = sd_event_add_io(p.event, NULL, sock, EPOLLIN, on_order, &p);
	if (r >= 0)
		r = sd_event_loop(p.event);
	if (r < 0)
		log_error("the process that makes connections cannot go on: %s", strerror(-r));
	_exit(r < 0);
}

pid_t spawner_fork(int sock, struct sandbox *sandbox, bool tied)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	if (tied && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
		_exit(1);
	/* The others are those of the parent's event loop. */
	if (dup2(sock, SPAWNER_SOCK) < 0 ||
	    close_range(SPAWNER_SOCK + 1, SANDBOX_FIRST_FD - 1, 0) < 0)
		_exit(1);
	work(SPAWNER_SOCK, sandbox);
}
