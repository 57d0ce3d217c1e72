/* Those who watch the status of all devices, and read it when they like. */
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "daemon/manager.h"
#include "daemon/proto/varlink.h"
#include "daemon/report.h"
#include "daemon/status.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define WATCHERS	20
#define CHANGES		50

void __wrap_report_refresh(struct manager *m);
int __wrap_sd_event_add_time_relative(sd_event *e, sd_event_source **s, clockid_t clock,
				      uint64_t usec, uint64_t accuracy,
				      sd_event_time_handler_t fn, void *userdata);
int __real_sd_event_add_time_relative(sd_event *e, sd_event_source **s, clockid_t clock,
				      uint64_t usec, uint64_t accuracy,
				      sd_event_time_handler_t fn, void *userdata);

/* How often a status of all devices was made: each asks for the reports once. */
static unsigned made;

void __wrap_report_refresh(struct manager *m)
{
	made++;
}

/* Changes are not gathered for 100 ms. */
int __wrap_sd_event_add_time_relative(sd_event *e, sd_event_source **s, clockid_t clock,
				      uint64_t usec, uint64_t accuracy,
				      sd_event_time_handler_t fn, void *userdata)
{
	return __real_sd_event_add_time_relative(e, s, clock, 0, accuracy, fn, userdata);
}

static void on_call(struct varlink_call *call, struct json_object *params, void *userdata)
{
	CHECK_INT(status_watch(userdata, call, NULL), 0);
}

static const struct varlink_method methods[] = { { "Status", false, on_call } };
static const struct varlink_interface interface = { "x.y", "interface x.y\n", methods, 1 };

static void run(struct manager *m)
{
	while (sd_event_run(m->event, 1000) > 0)
		;
}

/* At an address of the kernel's choice. */
static int listen_at(struct sockaddr_un *ret, socklen_t *ret_len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_len = sizeof(*ret);
	CHECK_INT(bind(fd, (struct sockaddr *)ret, sizeof(sa_family_t)), 0);
	CHECK_INT(getsockname(fd, (struct sockaddr *)ret, ret_len), 0);
	CHECK_INT(listen(fd, WATCHERS), 0);
	return fd;
}

static int watch(struct manager *m, const struct sockaddr_un *a, socklen_t len)
{
	static const char call[] = "{\"method\":\"x.y.Status\",\"more\":true}";
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK_INT(connect(fd, (const struct sockaddr *)a, len), 0);
	CHECK_INT(write(fd, call, sizeof(call)), (int)sizeof(call));
	run(m);
	return fd;
}

/* Long enough that a few fill a socket. */
static void change(struct manager *m, unsigned number)
{
	for (size_t i = 0; i < m->reports->n; i++)
		snprintf(m->reports->list[i].text, REPORT_MAX, "change %u: %0600d", number, 0);
	status_changed(m);
	run(m);
}

/* What FD has been told; the number of the last change of that. */
static unsigned last_told(struct manager *m, int fd)
{
	static char text[1 << 22];
	struct pollfd p = { fd, POLLIN, 0 };
	unsigned number = 0;
	size_t len = 0;

	while (poll(&p, 1, 0) == 1) {
		CHECK(len < sizeof(text) - 65536);
		len += (size_t)read(fd, text + len, 65536);
		run(m);
	}
	CHECK(len > 0 && !text[len - 1]);
	for (char *t = text; t < text + len; t += strlen(t) + 1)
		CHECK_INT(sscanf(strstr(t, "change "), "change %u", &number), 1);
	return number;
}

TEST(who_watches_learns_the_last_state_and_one_status_is_made_for_all)
{
	static struct reports reports = { .n = REPORTS_MAX };
	struct manager m = { .reports = &reports };
	struct sockaddr_un a;
	int fds[WATCHERS];
	socklen_t len;

	CHECK(sd_event_new(&m.event) >= 0);
	CHECK_INT(varlink_server_new(m.event, listen_at(&a, &len), &interface, &m, &m.server),
		  0);
	change(&m, 0);
	for (size_t i = 0; i < WATCHERS; i++)
		fds[i] = watch(&m, &a, len);
	made = 0;
	for (unsigned i = 1; i <= CHANGES; i++) {
		change(&m, i);
		CHECK(made <= i);
		/* One of them reads. */
		CHECK_INT(last_told(&m, fds[0]), i);
	}
	for (size_t i = 1; i < WATCHERS; i++)
		CHECK_INT(last_told(&m, fds[i]), CHANGES);
	/* Those who had not read were told once more, of one state. */
	CHECK(made <= CHANGES + 1);
	for (size_t i = 0; i < WATCHERS; i++)
		close(fds[i]);
	run(&m);
	change(&m, 0);			/* nobody is there any more */
	CHECK(made <= CHANGES + 1);
	varlink_server_free(m.server);
	free(m.watchers);
	sd_event_unref(m.event);
}
