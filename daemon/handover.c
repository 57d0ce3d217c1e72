/* The side that gives: the nbdd that runs. */
#include "daemon/handover.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/adopt.h"
#include "daemon/control.h"
#include "daemon/kworker.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/notify.h"
#include "daemon/passing.h"
#include "daemon/patience.h"
#include "daemon/proto/varlink.h"
#include "daemon/save.h"
#include "daemon/store.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/fd.h"

#define HELLO_USEC	(5 * USEC_PER_SEC)	/* from connect to HELLO */
#define LOOK_USEC	(5 * USEC_PER_MSEC)
#define LOOK_AGAIN_USEC	(200 * USEC_PER_MSEC)
#define QUIET_USEC	(10 * USEC_PER_SEC)	/* for calls into the kernel to end */
#define STILL_USEC	(5 * USEC_PER_SEC)	/* the successor has used no CPU: it hangs */
#define PATIENCE_USEC	(60 * USEC_PER_SEC)	/* however busy it is */
#define DEATH_USEC	(5 * USEC_PER_SEC)

struct handover {
	struct manager *m;
	int listen, lock;
	sd_event_source *listening;
	int sock, peer, peer_pid;	/* the successor; -1: none now */
	sd_event_source *messages, *silence, *looking;
	uint64_t since_usec;
	struct patience patience;
};

static void let_go(struct handover *h)
{
	h->messages = sd_event_source_disable_unref(h->messages);
	h->silence = sd_event_source_disable_unref(h->silence);
	h->looking = sd_event_source_disable_unref(h->looking);
	h->sock = fd_close(h->sock);
	h->peer = fd_close(h->peer);
}

/* Nothing else is done meanwhile, so a successor that hangs is not waited for; one that is
 * slow, because the machine is, gets its time. */
static bool go_on_waiting(struct handover *h, int r)
{
	if ((r != -EAGAIN && r != -ETIMEDOUT) || !patience_left(&h->patience))
		return false;
	(void)notify_send(h->m->notify, "WATCHDOG=1");
	return true;
}

static int give_message(struct handover *h, const char *word, const char *text, size_t len,
			const int *fds, size_t n_fds)
{
	int r;

	do
		r = passing_send(h->sock, word, text, len, fds, n_fds);
	while (go_on_waiting(h, r));
	return r;
}

/* It may have come while this process was stopped, and could not wait. */
static int await(struct handover *h, const char *word, struct passing *p)
{
	int r;

	do
		r = passing_expect(h->sock, LOOK_AGAIN_USEC, word, p);
	while (go_on_waiting(h, r));
	if (r == -ETIMEDOUT)
		r = passing_expect(h->sock, 0, word, p);
	if (r >= 0)
		passing_close_fds(p);
	return r;
}

static void refuse(struct handover *h, const char *why)
{
	log_warning("not handed over to process %d: %s", h->peer_pid, why);
	if (passing_say(h->sock, "REFUSED", "%s", why) < 0)
		log_debug("it could not be told");
	let_go(h);
}

/* ---- what is given ----------------------------------------------------------------- */

static int give_device(struct handover *h, const struct device *d, struct state *s)
{
	_cleanup_free_ char *text = NULL;
	int fds[CONF_CONNECTIONS_MAX];
	size_t len, n = 0;
	int r = state_format(s, &text, &len);

	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE && d->links[i].fd >= 0)
			fds[n++] = d->links[i].fd;
	return r < 0 ? r : give_message(h, "DEVICE", text, len, fds, n);
}

static int give_devices(struct handover *h, unsigned *ret_n)
{
	_cleanup_free_ struct state *s = NULL;
	int r = 0;

	s = malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	*ret_n = 0;
	for (size_t i = 0; i < h->m->n_devices && r >= 0; i++) {
		if (!save_describe(h->m->devices[i], s))
			continue;
		r = give_device(h, h->m->devices[i], s);
		++*ret_n;
	}
	return r;
}

/* What the service manager said to us goes along, for the successor is another process of
 * the same service. */
static int give_rest(struct handover *h, unsigned n)
{
	const int fds[] = { h->lock, varlink_server_fd(h->m->server), kworker_fd(h->m->worker) };
	const char *notify = getenv("NOTIFY_SOCKET"), *watchdog = getenv("WATCHDOG_USEC");
	char text[512];

	snprintf(text, sizeof(text), "%u\n%s\n%s\n", n, notify ? notify : "",
		 watchdog ? watchdog : "");
	return give_message(h, "END", text, strlen(text), fds, ARRAY_SIZE(fds));
}

/* ---- one that fails ---------------------------------------------------------------- */

/* Who is not root cannot kill a successor that is: false, and there must not be two. */
static bool kill_successor(const struct handover *h)
{
	int r = syscall(SYS_pidfd_send_signal, h->peer, SIGKILL, NULL, 0) < 0 ? -errno : 0;

	if (r < 0 && r != -ESRCH)
		log_error("cannot kill process %d: %s", h->peer_pid, strerror(-r));
	return r != -EPERM;
}

/* ---- after GO ---------------------------------------------------------------------- */

/* The successor died when it was in charge: what it has done to the devices is in the files
 * and in the kernel, and is taken over from there, with our descriptors. */
static void take_back(struct handover *h)
{
	struct manager *m = h->m;
	struct adopt_fds fds = { .fds = calloc(MANAGER_DEVICES_MAX * CONF_CONNECTIONS_MAX,
					       sizeof(int)) };

	log_error("process %d died while it took over: going on here", h->peer_pid);
	lock_sign(h->lock);
	m->leaving = true;
	while (m->n_devices) {
		struct device *d = m->devices[m->n_devices - 1];

		for (size_t i = 0; i < d->n_links && fds.fds; i++)
			if (d->links[i].state == LINK_ALIVE && d->links[i].fd >= 0)
				fds.fds[fds.n++] = STEAL_FD(d->links[i].fd);
		m->n_devices--;
		device_set_error(d, "a handover failed: try again");
		control_attach_failed(d, CONTROL_ERROR_FAILED);
		control_detach_done(d, -ECANCELED);
		device_free(d);
	}
	m->leaving = false;
	store_free(m->store);
	m->store = NULL;
	adopt_devices(m, &fds);
	adopt_fds_close(&fds);
	manager_load(m);
}

/* While this process was stopped, its successor may have handed over in its turn. */
static int in_charge(const struct handover *h)
{
	int pid = lock_holder(h->lock);

	return pid && pid != getpid() ? pid : h->peer_pid;
}

static void go(struct handover *h, struct passing *p)
{
	char text[64];
	int pid;
	int r = passing_say(h->sock, "GO", "on");

	if (r >= 0)
		r = await(h, "RUNNING", p);
	if (r >= 0 && passing_peer_dead(h->peer, 0))
		r = -ESRCH;
	pid = in_charge(h);
	if (r < 0 && pid == h->peer_pid &&
	    (passing_peer_dead(h->peer, 0) || kill_successor(h))) {
		while (!passing_peer_dead(h->peer, DEATH_USEC))
			log_error("process %d does not die", h->peer_pid);
		take_back(h);
		let_go(h);
		return;
	}
	log_notice("process %d has taken over: ending", pid);
	snprintf(text, sizeof(text), "MAINPID=%d", pid);
	(void)notify_send(h->m->notify, text);
	sd_event_exit(h->m->event, 0);
	/* The connection ends with us, which is the successor's sign. */
	h->messages = sd_event_source_disable_unref(h->messages);
}

/* In one go, so that nothing changes meanwhile. */
static void give(struct handover *h)
{
	_cleanup_free_ struct passing *p = NULL;
	unsigned n;
	int r = 0;

	p = malloc(sizeof(*p));
	r = p ? patience_begin(&h->patience, h->peer_pid, STILL_USEC, PATIENCE_USEC) : -ENOMEM;
	if (r >= 0)
		r = give_devices(h, &n);
	if (r >= 0)
		r = give_rest(h, n);
	if (r >= 0)
		r = await(h, "TAKEN", p);
	if (r >= 0) {
		go(h, p);
		return;
	}
	log_error("handover to process %d failed (%s): going on", h->peer_pid, strerror(-r));
	/* It may have the worker's netlink socket, and would take answers out of that. */
	(void)kill_successor(h);
	let_go(h);
}

/* ---- the way there ----------------------------------------------------------------- */

static bool quiet(const struct manager *m)
{
	for (size_t i = 0; i < m->n_devices; i++)
		if (m->devices[i]->call || m->devices[i]->state == STATE_MOVING)
			return false;
	return kworker_idle(m->worker);
}

static int on_look(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct handover *h = userdata;

	h->looking = sd_event_source_disable_unref(h->looking);
	if (quiet(h->m))
		give(h);
	else if (now_usec() - h->since_usec > QUIET_USEC)
		refuse(h, "a call into the kernel does not come back");
	else if (sd_event_add_time_relative(h->m->event, &h->looking, CLOCK_MONOTONIC, LOOK_USEC,
					    USEC_PER_MSEC, on_look, h) < 0)
		let_go(h);
	return 0;
}

static void begin(struct handover *h, const struct passing *hello)
{
	unsigned protocol, oldest, newest;

	if (strcmp(hello->word, "HELLO") != 0 ||
	    sscanf(hello->text, "%9u %9u %9u", &protocol, &oldest, &newest) != 3) {
		refuse(h, "it does not speak as an nbdd does");
	} else if (protocol != PASSING_PROTOCOL || oldest > STATE_VERSION ||
		   newest < STATE_VERSION) {
		char why[256];

		snprintf(why, sizeof(why), "it speaks protocol %u and reads states of version "
			 "%u to %u; this one (" NBDD_VERSION ") speaks %u and writes version "
			 "%u: stop this one, and start the other", protocol, oldest, newest,
			 PASSING_PROTOCOL, STATE_VERSION);
		refuse(h, why);
	} else if (passing_say(h->sock, "WELCOME", "%u %u %s", PASSING_PROTOCOL, STATE_VERSION,
			       NBDD_VERSION) < 0) {
		let_go(h);
	} else {
		log_notice("handing over to process %d", h->peer_pid);
		h->since_usec = now_usec();
		on_look(NULL, 0, h);
	}
}

static int on_message(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct handover *h = userdata;
	struct passing *p = malloc(sizeof(*p));
	int r = p ? passing_receive(h->sock, 0, p) : -ENOMEM;

	if (r >= 0)
		passing_close_fds(p);
	if (r < 0 || h->looking) {
		let_go(h);
	} else {
		h->silence = sd_event_source_disable_unref(h->silence);
		begin(h, p);
	}
	free(p);
	return 0;
}

static int on_silence(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct handover *h = userdata;

	log_warning("process %d connected to take over, and said nothing: let go", h->peer_pid);
	let_go(h);
	return 0;
}

static int on_successor(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	const struct timeval limit = { .tv_usec = LOOK_AGAIN_USEC };
	struct handover *h = userdata;
	int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (sock < 0)
		return 0;
	if (h->sock >= 0) {		/* one at a time */
		fd_close(sock);
		return 0;
	}
	h->sock = sock;
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	h->peer = passing_peer(sock, &h->m->options.owners, &h->peer_pid);
	if (h->peer < 0 ||
	    sd_event_add_io(h->m->event, &h->messages, sock, EPOLLIN, on_message, h) < 0 ||
	    sd_event_add_time_relative(h->m->event, &h->silence, CLOCK_MONOTONIC, HELLO_USEC,
				       USEC_PER_MSEC, on_silence, h) < 0)
		let_go(h);
	return 0;
}

/* A name of its own first: the predecessor's socket may still stand under the right one. */
static int listen_on(const char *runtime_dir)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)], fresh[sizeof(path)];
	_cleanup_close_ int fd = -1;
	int r;

	if ((size_t)snprintf(path, sizeof(path), "%s/" PASSING_SOCKET, runtime_dir) >=
	    sizeof(path) - 4)
		return -ENAMETOOLONG;
	snprintf(fresh, sizeof(fresh), "%.*s.new", (int)sizeof(path) - 5, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(fresh);
	r = fd_bind_unix(fd, fresh, 0600);
	if (r >= 0 && (listen(fd, 1) < 0 || rename(fresh, path) < 0))
		r = -errno;
	return r < 0 ? r : STEAL_FD(fd);
}

int handover_listen(struct manager *m, int lock, struct handover **ret)
{
	struct handover *h = calloc(1, sizeof(*h));
	int r = h ? 0 : -ENOMEM;

	if (h) {
		*h = (struct handover){ .m = m, .lock = lock, .sock = -1, .peer = -1 };
		r = h->listen = listen_on(m->options.runtime_dir);
	}
	if (r >= 0)
		r = sd_event_add_io(m->event, &h->listening, h->listen, EPOLLIN, on_successor, h);
	if (r < 0) {
		log_warning("cannot wait for a successor (--replace): %s", strerror(-r));
		handover_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

void handover_free(struct handover *h)
{
	if (!h)
		return;
	let_go(h);
	sd_event_source_disable_unref(h->listening);
	fd_close(h->listen);
	free(h);
}
