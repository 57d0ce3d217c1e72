/* The start of nbdd, and what it must not end of. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "daemon/child.h"
#include "daemon/device.h"
#include "daemon/fdstore.h"
#include "daemon/handover.h"
#include "daemon/inherit.h"
#include "daemon/manager.h"
#include "daemon/notify.h"
#include "daemon/passing.h"
#include "daemon/resume.h"
#include "lib/util/fd.h"
#include "tests/unit/unit.h"

/* ---- what does not work, or does what the test says -------------------------------- */

static struct {
	int timer;			/* readable when the clock was set */
	unsigned armed, hurried, forked, read;
	time_t asleep_sec;		/* in all */
	time_t sleeps_while_armed_sec;
} fake;

int __wrap_timerfd_create(int clock, int flags);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *value,
			   struct itimerspec *old);
int __real_timerfd_settime(int fd, int flags, const struct itimerspec *value,
			   struct itimerspec *old);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __real_clock_gettime(clockid_t id, struct timespec *t);
void __wrap_manager_hurry(struct manager *m, const char *why);
int __wrap_child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		       void *userdata, struct child **ret);
int __wrap_conf_read(const char *nbdd_conf, const char *nbdtab, struct conf **ret);

int __wrap_timerfd_create(int clock, int flags)
{
	return fake.timer = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

/* The clock is set again in this moment. */
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *value,
			   struct itimerspec *old)
{
	if (!(flags & TFD_TIMER_CANCEL_ON_SET))
		return __real_timerfd_settime(fd, flags, value, old);
	fake.asleep_sec += fake.sleeps_while_armed_sec;
	errno = ECANCELED;
	return fake.armed++ ? -1 : 0;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
	int r = __real_clock_gettime(id, t);

	if (id == CLOCK_BOOTTIME)
		t->tv_sec += fake.asleep_sec;
	return r;
}

void __wrap_manager_hurry(struct manager *m, const char *why)
{
	fake.hurried++;
}

int __wrap_child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		       void *userdata, struct child **ret)
{
	fake.forked++;
	return -EAGAIN;
}

int __wrap_conf_read(const char *nbdd_conf, const char *nbdtab, struct conf **ret)
{
	static struct conf empty;

	*ret = &empty;
	return fake.read++ ? 0 : -ENOMEM;
}

/* ---- the tests --------------------------------------------------------------------- */

static struct manager *new_manager(void)
{
	struct manager *m = calloc(1, sizeof(*m));

	CHECK(m && sd_event_new(&m->event) >= 0);
	return m;
}

static void set_clock(struct manager *m, time_t asleep_sec)
{
	uint64_t one = 1;

	fake.asleep_sec += asleep_sec;
	CHECK_INT(write(fake.timer, &one, sizeof(one)), sizeof(one));
	CHECK(sd_event_run(m->event, 0) > 0);
}

TEST(a_clock_that_is_set_twice_hides_no_suspend)
{
	struct manager *m = new_manager();

	CHECK_INT(resume_watch(m), 0);
	for (unsigned i = 1; i <= 3; i++) {
		set_clock(m, 7);
		CHECK_INT(fake.hurried, i);
	}
	set_clock(m, 0);
	CHECK_INT(fake.hurried, 3);
	/* The machine may sleep after the read, too. */
	fake.sleeps_while_armed_sec = 7;
	set_clock(m, 0);
	CHECK_INT(fake.hurried, 4);
	CHECK_INT(fake.armed, 6);
}

static void run_until(struct manager *m, const unsigned *count, unsigned wanted)
{
	for (int i = 0; i < 100 && *count < wanted; i++)
		CHECK(sd_event_run(m->event, 100000) >= 0);
	CHECK_INT(*count, wanted);
}

TEST(a_configuration_that_cannot_be_looked_at_is_looked_at_again)
{
	static struct device away = { .state = STATE_RECONNECTING };
	struct manager *m = new_manager();

	m->devices[m->n_devices++] = &away;
	manager_load(m);
	CHECK_INT(fake.forked, 1);
	CHECK(m->load_due);
	run_until(m, &fake.forked, 2);
	/* A device that is there may hang. */
	away.state = STATE_CONNECTED;
	manager_load_due(m);
	CHECK_INT(fake.forked, 3);
	CHECK_INT(fake.read, 0);
	m->n_devices = 0;
	fake.read = 1;
	manager_load_due(m);
	CHECK_INT(fake.read, 2);
	CHECK(!m->load_due && m->conf);
}

TEST(a_configuration_that_cannot_be_read_is_read_again)
{
	struct manager *m = new_manager();

	manager_load(m);
	CHECK_INT(fake.read, 1);
	CHECK(m->load_due && !m->conf);
	run_until(m, &fake.read, 2);
	CHECK(!m->load_due && m->conf);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int new_fd(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	return fd;
}

TEST(what_systemd_passes_joins_what_was_handed_over)
{
	struct inherited a = { .listen = new_fd(), .genl = new_fd() };
	struct inherited b = { .listen = new_fd(), .genl = new_fd() };
	int old = a.listen, fresh = b.listen, genl = a.genl, other = b.genl, links[3];

	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		links[i] = new_fd();
	a.links.fds = malloc(sizeof(int));
	b.links.fds = calloc(2, sizeof(int));
	CHECK(a.links.fds && b.links.fds);
	a.links.fds[a.links.n++] = links[0];
	b.links.fds[b.links.n++] = links[1];
	b.links.fds[b.links.n++] = links[2];
	inherited_merge(&a, &b);
	CHECK_INT(a.listen, fresh);
	CHECK(!is_open(old));
	CHECK_INT(a.genl, genl);
	CHECK_INT(a.links.n, 3);
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		CHECK_INT(a.links.fds[i], links[i]);
	inherited_close(&b);
	CHECK(!is_open(other) && is_open(fresh) && is_open(links[2]));
	inherited_merge(&a, &b);		/* nothing */
	CHECK_INT(a.listen, fresh);
	inherited_close(&a);
	CHECK(!is_open(fresh) && !is_open(genl) && !is_open(links[0]) && !is_open(links[2]));
}

TEST(without_a_predecessor_all_is_systemd_s)
{
	struct inherited none = INHERITED_NULL;
	struct inherited passed = { .listen = new_fd(), .genl = new_fd() };
	int listen = passed.listen, genl = passed.genl;

	inherited_merge(&none, &passed);
	inherited_close(&passed);
	CHECK(none.listen == listen && none.genl == genl && is_open(listen) && is_open(genl));
	inherited_close(&none);
}

/* LISTEN_FDNAMES=, in which each name takes its length and a colon. */
TEST(the_names_of_all_that_is_stored_fit_into_one_variable)
{
	struct manager *m = new_manager();
	struct device d = { .manager = m, .index = 1023 };
	struct link l = { .device = &d, .state = LINK_ALIVE, .fd = new_fd() };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int listening = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	static const struct {
		uint64_t inode;
		const char *name;
	} names[] = {
		{ 35, "nz" }, { 36, "n10" }, { UINT32_MAX, "n1z141z3" },
		{ UINT64_MAX, "n3w5e11264sgsf" },
	};
	char text[256], wanted[256];

	snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "nbdd-unit-%d", (int)getpid());
	CHECK_INT(bind(listening, (struct sockaddr *)&a, (socklen_t)(
		offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a.sun_path + 1))), 0);
	snprintf(text, sizeof(text), "@%s", a.sun_path + 1);
	CHECK_INT(setenv("NOTIFY_SOCKET", text, 1), 0);
	CHECK_INT(notify_open(&m->notify), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		ssize_t n;

		l.stored = false;
		l.sock.inode = names[i].inode;
		fdstore_link(&l);
		n = recv(listening, text, sizeof(text) - 1, 0);
		CHECK(n > 0);
		text[n] = '\0';
		snprintf(wanted, sizeof(wanted), "FDSTORE=1\nFDNAME=%s", names[i].name);
		CHECK_STR(text, wanted);
		/* FileDescriptorStoreMax= of nbdd.service; some room for the other names. */
		CHECK(8192 * (strlen(names[i].name) + 1) < (128u << 10) - 256);
	}
}

/* ---- a predecessor ------------------------------------------------------------------ */

/* It listens, and says WORDS to who comes.  NULL: it dies at once. */
static void precede(int listening, int ready, const char *const *words)
{
	char hello[64];
	int sock;

	if (listen(listening, 1) < 0 || write(ready, "", 1) != 1)
		_exit(1);
	sock = words ? accept(listening, NULL, NULL) : -1;
	if (sock < 0 || read(sock, hello, sizeof(hello)) <= 0)
		_exit(1);
	for (; *words; words++)
		if (write(sock, *words, strlen(*words)) < 0)
			_exit(1);
	pause();
}

/* What its successor makes of that. */
static int begin_takeover(const char *const *words)
{
	char dir[] = "/tmp/nbdd-unit-XXXXXX", path[64], byte;
	struct manager_options o = { .runtime_dir = dir, .owners = { .self = geteuid() } };
	int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), ready[2], r;
	struct takeover t;
	pid_t pid;

	CHECK(mkdtemp(dir) && pipe(ready) == 0);
	snprintf(path, sizeof(path), "%s/" PASSING_SOCKET, dir);
	CHECK_INT(fd_bind_unix(listening, path, 0600), 0);
	pid = fork();
	if (pid == 0)
		precede(listening, ready[1], words);
	CHECK_INT(read(ready[0], &byte, 1), 1);
	if (!words)
		CHECK_INT(waitpid(pid, NULL, 0), pid);
	r = takeover_begin(&o, &t);
	takeover_free(&t);
	if (words) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	unlink(path);
	rmdir(dir);
	return r;
}

TEST(a_predecessor_that_has_died_is_none)
{
	CHECK_INT(begin_takeover(NULL), -ENOENT);
}

TEST(a_predecessor_may_refuse_at_any_time)
{
	static const char *const words[][3] = {
		{ "REFUSED no" }, { "WELCOME 1 1 0", "REFUSED no" }, { "WELCOME 1 1 0", "WHAT " },
	};
	static const int expected[] = { -EPROTONOSUPPORT, -EBUSY, -EPROTO };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		CHECK_INT(begin_takeover(words[i]), expected[i]);
}
