#include "daemon/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/child.h"
#include "daemon/pump.h"
#include "daemon/spawner.h"
#include "lib/util/cleanup.h"

/* More than the states of two ciphers take. */
#define CIPHERS_SIZE	(64 << 10)
#define PAIR_SIZE	(1 << 20)	/* bytes under way in each direction, at most */

/* What a relay begins with; its end of the pair and the server's socket come along. */
struct relay_setup {
	struct nbdd_tls_state state;
	uint64_t records;
};

/* All of it, in memory of its own. */
struct relay_work {
	int sock;			/* to the daemon */
	bool told;			/* it why this ends */
	struct pump pump;
};

/* The byte of a process's number: only that process can have it locked, as long as it runs.
 * (POSIX locks, fcntl(2).) */
static struct flock mark_of(pid_t pid, short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = pid, .l_len = 1 };
}

/* ---- in the relay ------------------------------------------------------------------ */

static void tell(struct relay_work *w, enum relay_news news, const char *why)
{
	struct relay_message m = { .news = news };

	snprintf(m.why, sizeof(m.why), "%s", why);
	/* Nobody may listen any more; nor would a daemon that hangs be waited for. */
	(void)!send(w->sock, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void on_key_used(void *userdata)
{
	tell(userdata, RELAY_KEY_USED, "");
}

static const char *why(const struct pump *p)
{
	if (p->why)
		return p->why;
	return p->error ? strerror(p->error) : "it took too long to end";
}

/* Before the kernel hears of it, and the daemon asks. */
static void on_end(void *userdata)
{
	struct relay_work *w = userdata;
	char text[RELAY_WHY_MAX];

	if (w->told)
		return;
	snprintf(text, sizeof(text), "%s%s", w->pump.by_server ? "the server " : "",
		 why(&w->pump));
	tell(w, RELAY_ENDS, text);
	w->told = true;
}

/* Memory that no page of can be missing later.  A fork has to lock its own copy; where that is
 * refused, it was to its parent, too, which has logged it. */
int relay_prepare(void *arg)
{
	struct child_given *given = arg;
	void *room = malloc(CIPHERS_SIZE);
	struct relay_work *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (w == MAP_FAILED || !room)
		_exit(1);
	madvise(w, sizeof(*w), MADV_DONTDUMP);
	given->work = w;
	/* The heap keeps it, for it may not grow any more. */
	free(room);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	/* What is sent to the daemon's process group, such as a Ctrl-C, is not for us. */
	setsid();
	return given->kept;
}

/* By any descriptor of the file that is closed, the mark would be lost; and once it works, it
 * may lock nothing: every lock is memory of the kernel, and tells the next nbdd of a process.
 * Where it is refused, an nbdd that comes after this one does not know us. */
void relay_settle(int kept, void *arg)
{
	struct flock mark = mark_of(getpid(), F_RDLCK);

	(void)!fcntl(kept, F_SETLK, &mark);
}

static int begin(struct relay_work *w)
{
	struct relay_setup setup;
	int fds[2], r;
	size_t n_fds = 2;
	ssize_t n = fd_recv(w->sock, &setup, sizeof(setup), fds, &n_fds);

	if (n != sizeof(setup) || n_fds != 2)
		return -EPROTO;
	w->pump.records = setup.records;
	w->pump.key_used = on_key_used;
	w->pump.ends = on_end;
	w->pump.userdata = w;
	r = pump_init(&w->pump, fds[0], fds[1], &setup.state);
	explicit_bzero(&setup, sizeof(setup));
	return r;
}

void relay_main(int sock, int kept, void *arg)
{
	struct relay_work *w = ((struct child_given *)arg)->work;
	int r;

	w->sock = sock;
	tell(w, RELAY_BEGINS, "");
	r = begin(w);
	if (r < 0) {
		w->pump.error = -r;
		on_end(w);
		return;
	}
	pump_run(&w->pump);
	on_end(w);
	/* The daemon has duplicates: they are ended for all. */
	shutdown(w->pump.plain, SHUT_RDWR);
	shutdown(w->pump.server, SHUT_RDWR);
	pump_deinit(&w->pump);
}

/* ---- in the daemon ----------------------------------------------------------------- */

static void cleanup_relay_p(struct relay *r)
{
	fd_close(r->sock);
	fd_close(r->kernel);
}

/* By default a batch does not fit, and each takes several turns of both sides.  Where it is
 * refused, that is how it is. */
static void widen(const int pair[static 2])
{
	int size = PAIR_SIZE;

	for (int i = 0; i < 2; i++)
		(void)!setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
}

int relay_marks_open(const char *runtime_dir)
{
	char path[4096];
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s/relays", runtime_dir) >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
		  0600);
	return fd < 0 ? -errno : fd;
}

int relay_find(int marks, pid_t pid)
{
	/* In this order: the number is not given to another while the descriptor is held. */
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct flock lock = mark_of(pid, F_WRLCK);

	if (pidfd < 0 || fcntl(marks, F_GETLK, &lock) < 0)
		return -errno;
	return lock.l_type == F_UNLCK || lock.l_pid != pid ? -ESRCH : STEAL_FD(pidfd);
}

/* As long as the other end is there, its process is, and the number is its own. */
static bool is_there(int sock)
{
	struct pollfd p = { .fd = sock, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 0;
}

int relay_identify(pid_t pid, int sock)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0)
		return -errno;
	return is_there(sock) ? STEAL_FD(pidfd) : -ESRCH;
}

int relay_receive(int sock, struct relay_message *ret, pid_t *ret_pid)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec iov = { ret, sizeof(*ret) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	struct ucred from;

	if (n <= 0)
		return n < 0 && errno != EAGAIN ? -errno : 0;
	if (n != sizeof(*ret) || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !c ||
	    c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
		return -EPROTO;
	memcpy(&from, CMSG_DATA(c), sizeof(from));
	*ret_pid = from.pid;
	return 1;
}

/* The pair of which the spawner's child gets one end; its messages come with its pid. */
static int open_sock(struct spawner *spawner, int marks, const char *name,
		     struct relay *relay)
{
	int pair[2], on = 1, r = 0;
	char what[16];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	relay->sock = pair[0];
	snprintf(what, sizeof(what), "relay %s", name);
	if (setsockopt(relay->sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		r = -errno;
	if (r >= 0)
		r = spawner_ask(spawner, SANDBOX_RELAY, what, pair[1], -1, marks);
	fd_close(pair[1]);
	return r;
}

int relay_start(struct spawner *spawner, int marks, const char *name, int server,
		const struct nbdd_tls_state *state, uint64_t records, struct relay *ret)
{
	_cleanup_(cleanup_relay_p) struct relay relay = { .sock = -1, .kernel = -1 };
	struct relay_setup setup = { .state = *state, .records = records };
	int pair[2], r = open_sock(spawner, marks, name, &relay);

	if (r >= 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		r = -errno;
	if (r >= 0) {
		widen(pair);
		relay.kernel = pair[0];
		r = fd_set_nonblock(pair[1], true);
		/* Into an empty socket: it does not wait. */
		if (r >= 0)
			r = fd_send(relay.sock, &setup, sizeof(setup),
				    (int [2]){ pair[1], server }, 2);
		fd_close(pair[1]);
	}
	explicit_bzero(&setup, sizeof(setup));
	if (r < 0)		/* without a word it ends */
		return r;
	*ret = relay;
	relay = (struct relay){ .sock = -1, .kernel = -1 };
	return 0;
}
