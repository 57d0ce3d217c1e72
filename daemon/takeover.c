/* The side that takes: an nbdd started with --replace. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/device.h"
#include "daemon/fdstore.h"
#include "daemon/handover.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/notify.h"
#include "daemon/passing.h"
#include "daemon/status.h"
#include "daemon/watchdog.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"

#define ANSWER_USEC	(30 * USEC_PER_SEC)	/* the old one waits for the kernel meanwhile */
#define DEATH_USEC	(5 * USEC_PER_SEC)

void takeover_free(struct takeover *t)
{
	for (size_t i = 0; i < t->n_states; i++)
		free(t->states[i]);
	free(t->states);
	free(t->lens);
	sd_event_source_disable_unref(t->end);
	inherited_close(&t->inherited);
	fd_close(t->lock);
	fd_close(t->sock);
	fd_close(t->old);
	*t = TAKEOVER_NULL;
}

static int dial(const char *runtime_dir)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;

	if ((size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s/" PASSING_SOCKET, runtime_dir) >=
	    sizeof(a.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return errno == ECONNREFUSED ? -ENOENT : -errno;
	return STEAL_FD(fd);
}

static bool is_refusal(const struct passing *p)
{
	char text[512];

	if (strcmp(p->word, "REFUSED") != 0)
		return false;
	log_error("the nbdd that runs refuses: %s",
		  clean_text(text, sizeof(text), p->text, p->len));
	return true;
}

static int greet(struct takeover *t, struct passing *p)
{
	unsigned protocol, version;
	int r = passing_say(t->sock, "HELLO", "%u %u %u " NBDD_VERSION, PASSING_PROTOCOL,
			    STATE_VERSION_MIN, STATE_VERSION);

	if (r >= 0)
		r = passing_receive(t->sock, ANSWER_USEC, p);
	if (r < 0)
		return r;
	passing_close_fds(p);
	if (is_refusal(p))
		return -EPROTONOSUPPORT;
	if (strcmp(p->word, "WELCOME") != 0 ||
	    sscanf(p->text, "%9u %9u", &protocol, &version) != 2)
		return -EPROTO;
	if (protocol == PASSING_PROTOCOL && version >= STATE_VERSION_MIN &&
	    version <= STATE_VERSION)
		return 0;
	log_error("the nbdd that runs speaks protocol %u and writes states of version %u; this "
		  "one (" NBDD_VERSION ") speaks %u and reads %u to %u: stop that one, and "
		  "start this one", protocol, version, PASSING_PROTOCOL, STATE_VERSION_MIN,
		  STATE_VERSION);
	return -EPROTONOSUPPORT;
}

/* Room for every device and descriptor that there can be. */
static int make_room(struct takeover *t)
{
	t->states = calloc(MANAGER_DEVICES_MAX, sizeof(*t->states));
	t->lens = calloc(MANAGER_DEVICES_MAX, sizeof(*t->lens));
	t->inherited.links.fds = calloc(MANAGER_DEVICES_MAX * PASSING_FDS_MAX, sizeof(int));
	return t->states && t->lens && t->inherited.links.fds ? 0 : -ENOMEM;
}

static int keep_device(struct takeover *t, struct passing *p)
{
	struct adopt_fds *links = &t->inherited.links;
	char *text;

	if (t->n_states == MANAGER_DEVICES_MAX)
		return -E2BIG;
	text = malloc(p->len);
	if (!text)
		return -ENOMEM;
	memcpy(text, p->text, p->len);
	t->states[t->n_states] = text;
	t->lens[t->n_states++] = p->len;
	while (p->n_fds)
		links->fds[links->n++] = p->fds[--p->n_fds];
	return 0;
}

static void set_variable(const char *name, const char *value)
{
	if (*value)
		setenv(name, value, 0);
}

/* We are the service from now on, unless we are one of our own. */
static int keep_rest(struct takeover *t, struct passing *p)
{
	char *rest = p->text, *count, *notify, *watchdog, pid[16];

	count = strsep(&rest, "\n");
	notify = strsep(&rest, "\n");
	watchdog = strsep(&rest, "\n");
	if (p->n_fds != 3 || !watchdog || strtoul(count, NULL, 10) != t->n_states)
		return -EPROTO;
	t->lock = p->fds[0];
	t->inherited.listen = p->fds[1];
	t->inherited.genl = p->fds[2];
	t->inherited.handed_over = true;
	p->n_fds = 0;
	set_variable("NOTIFY_SOCKET", notify);
	set_variable("WATCHDOG_USEC", watchdog);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	set_variable("WATCHDOG_PID", *watchdog ? pid : "");
	return 0;
}

static int receive_all(struct takeover *t, struct passing *p)
{
	int r;

	while (t->lock < 0) {
		r = passing_receive(t->sock, ANSWER_USEC, p);
		if (r < 0)
			return r;
		if (strcmp(p->word, "DEVICE") == 0)
			r = keep_device(t, p);
		else if (strcmp(p->word, "END") == 0)
			r = keep_rest(t, p);
		else
			r = is_refusal(p) ? -EBUSY : -EPROTO;
		passing_close_fds(p);
		if (r < 0)
			return r;
	}
	return 0;
}

static int receive(struct takeover *t)
{
	struct passing *p = malloc(sizeof(*p));
	int r = p ? greet(t, p) : -ENOMEM;

	if (r >= 0)
		r = receive_all(t, p);
	free(p);
	return r;
}

/* An end of the connection is the old one's death, or its change of mind. */
static bool old_has_died(const struct takeover *t, int r)
{
	return (r == -ECONNRESET || r == -EPIPE) && passing_peer_dead(t->old, DEATH_USEC);
}

int takeover_begin(const struct manager_options *o, struct takeover *t)
{
	int pid = 0, r;

	*t = TAKEOVER_NULL;
	t->sock = dial(o->runtime_dir);
	if (t->sock == -ENOENT)
		return -ENOENT;
	r = t->sock;
	if (r >= 0)
		r = t->old = passing_peer(t->sock, &o->owners, &pid);
	if (r >= 0)
		r = make_room(t);
	if (r >= 0)
		r = receive(t);
	if (r >= 0)
		return 0;
	/* -ESRCH: before it could be seen who it was. */
	if (t->sock >= 0 && (r == -ESRCH || (t->old >= 0 && old_has_died(t, r)))) {
		log_warning("process %d died while it handed over", pid);
		t->sock = fd_close(t->sock);
		return -ENOENT;
	}
	log_error("cannot take over from the nbdd that runs: %s", strerror(-r));
	return r;
}

/* ---- in charge --------------------------------------------------------------------- */

static int understand(const struct takeover *t)
{
	struct state *s = calloc(1, sizeof(*s));
	char error[STATE_ERROR_MAX];
	int r = s ? 0 : -ENOMEM;

	for (size_t i = 0; i < t->n_states && r >= 0; i++) {
		*s = (struct state){};
		r = state_parse(t->states[i], t->lens[i], s, error);
		state_deinit(s);
		if (r < 0)
			log_error("state of a device that is handed over: %s", error);
	}
	free(s);
	return r;
}

static void adopt(struct takeover *t, struct manager *m)
{
	struct state *s = malloc(sizeof(*s));
	char error[STATE_ERROR_MAX] = "";

	for (size_t i = 0; i < t->n_states && s; i++) {
		int r;

		*s = (struct state){};
		r = state_parse(t->states[i], t->lens[i], s, error);
		if (r >= 0)
			r = adopt_device(m, s, &t->inherited.links, error);
		if (r < 0)
			log_error("%s: not taken over: %s", s->name,
				  r == -ENOENT ? "it has gone" : error);
		state_deinit(s);
	}
	free(s);
	/* What the files tell besides, and what they do not. */
	adopt_devices(m, &t->inherited.links);
}

static int on_old_end(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct takeover *t = userdata;
	struct manager *m = t->manager;

	takeover_free(t);
	if (notify_open(&m->notify) < 0 || !m->notify)
		return 0;
	status_ready(m);
	/* What was connected meanwhile is not yet in the store, nor is anything that one of another
	 * service had; the rest is, and stays. */
	fdstore_genl(m);
	for (size_t i = 0; i < m->n_devices; i++)
		for (size_t k = 0; k < m->devices[i]->n_links; k++) {
			m->devices[i]->links[k].stored = false;
			fdstore_link(&m->devices[i]->links[k]);
		}
	return 0;
}

/* Until the old one has ended, the service manager would not listen to us. */
static void await_end(struct takeover *t, struct manager *m)
{
	t->manager = m;
	if (sd_event_add_io(m->event, &t->end, t->sock, EPOLLIN, on_old_end, t) < 0)
		log_error("cannot wait for the old nbdd to end");
	watchdog_start(m);
}

int takeover_finish(struct takeover *t, int lock, struct manager *m)
{
	struct passing *p = malloc(sizeof(*p));
	int r = p ? understand(t) : -ENOMEM;

	if (r >= 0)
		r = passing_say(t->sock, "TAKEN", "all");
	if (r >= 0)
		r = passing_expect(t->sock, ANSWER_USEC, "GO", p);
	free(p);
	if (r < 0 && !old_has_died(t, r)) {
		log_error("cannot take over from the nbdd that runs: %s", strerror(-r));
		return r;
	}
	lock_sign(lock);
	adopt(t, m);
	if (passing_say(t->sock, "RUNNING", "now") < 0)
		log_debug("the old nbdd has ended already");
	await_end(t, m);
	return 0;
}
