/* Which server the links of a device go to, and when: nothing but the connectors, the kernel
 * and the files is not real. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include <libnbd.h>
#include "daemon/connector_child.h"
#include "daemon/event.h"
#include "daemon/fdstore.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/manager.h"
#include "daemon/news.h"
#include "daemon/one_server.h"
#include "daemon/retry.h"
#include "daemon/save.h"
#include "daemon/status.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define A	"10.0.0.1:10809"
#define B	"10.0.0.2:10809"
#define C	"10.0.0.3:10809"

/* ---- in the places of the outer world ------------------------------------------------ */

static struct {
	unsigned n, cancelled;
	bool limited;
	unsigned free;		/* connectors, if LIMITED */
	char served[64];	/* whose they were: a letter each */
	char label[TARGET_HOST_MAX + 10];	/* of the server that the latest is with, */
	size_t n_addresses;
	char address[LINK_PEER_MAX];	/* and the first of its addresses */
	struct connector_job *job;	/* of the latest process */
} dialled;

/* As the linker names them. */
__typeof__(kworker_submit) __wrap_kworker_submit;
__typeof__(save_device) __wrap_save_device;
__typeof__(save_server) __wrap_save_server;
__typeof__(status_changed) __wrap_status_changed;
__typeof__(news_tell) __wrap_news_tell;
__typeof__(fdstore_link) __wrap_fdstore_link;
__typeof__(connectors_busy) __wrap_connectors_busy;
__typeof__(connector_start) __wrap_connector_start, __real_connector_start;
__typeof__(connector_cancel) __wrap_connector_cancel;
__typeof__(child_start) __wrap_child_start;
__typeof__(child_cancel) __wrap_child_cancel;

void __wrap_kworker_submit(struct kworker *w, struct kjob *job)
{
}

void __wrap_save_device(struct device *d)
{
}

int __wrap_save_server(struct device *d)
{
	return 0;
}

void __wrap_status_changed(struct manager *m)
{
}

void __wrap_news_tell(struct device *d, enum news_kind kind, const char *format, ...)
{
}

void __wrap_fdstore_link(struct link *l)
{
}

bool __wrap_connectors_busy(const struct connectors *all)
{
	return dialled.limited && dialled.free == 0;
}

int __wrap_connector_start(struct connectors *all, const struct connector_spec *s,
			   struct connector **ret)
{
	dialled.served[dialled.n++ % sizeof(dialled.served)] = *s->name;
	dialled.free -= dialled.limited;
	snprintf(dialled.label, sizeof(dialled.label), "%s", s->server->label);
	dialled.n_addresses = s->server->n_addresses;
	link_format_peer(dialled.address, &s->server->addresses[0].addr,
			 s->server->addresses[0].len);
	*ret = (void *)&dialled;
	return 0;
}

struct connector *__wrap_connector_cancel(struct connector *c)
{
	dialled.cancelled += c != NULL;
	return NULL;
}

int __wrap_child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		       void *userdata, struct child **ret)
{
	struct job seen;

	CHECK_INT(job_copy(spec->job, &seen), 0);
	CHECK_INT(connector_job_read(&seen, &dialled.job), 0);
	*ret = (void *)&dialled;
	return 0;
}

struct child *__wrap_child_cancel(struct child *c)
{
	return NULL;
}

/* ---- a device ------------------------------------------------------------------------- */

static void add_address(struct server *s, const char *label)
{
	struct nbdd_address *a = &s->addresses[s->n_addresses++];
	struct sockaddr_in *in = (struct sockaddr_in *)&a->addr;
	char host[64];

	snprintf(host, sizeof(host), "%.*s", (int)strcspn(label, ":"), label);
	*in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(10809) };
	CHECK_INT(inet_pton(AF_INET, host, &in->sin_addr), 1);
	a->len = sizeof(*in);
}

static void add_server(struct target *t, const char *name, const char *const *labels)
{
	struct server *s = &t->servers[t->n_servers++];

	snprintf(s->host, sizeof(s->host), "%.*s", (int)strcspn(name, ":"), name);
	snprintf(s->label, sizeof(s->label), "%s", name);
	s->addresses = calloc(TARGET_ADDRESSES_MAX, sizeof(*s->addresses));
	for (; *labels; labels++)
		add_address(s, *labels);
}

static struct target servers(const char *first, const char *second)
{
	struct target t = {};

	add_server(&t, first, (const char *const[]){ first, NULL });
	if (second)
		add_server(&t, second, (const char *const[]){ second, NULL });
	t.export_name = strdup("");
	return t;
}

static struct device *device_named(const char *name, struct target target, size_t n_links)
{
	static struct manager m = { .worker = (void *)&m, .relay_marks = -1 };
	struct device_keys keys;
	struct device *d;

	if (!m.event)
		CHECK(sd_event_new(&m.event) >= 0);
	device_keys_init(&keys);
	CHECK_INT(device_new(&m, name, (int)m.n_devices, true, &keys, &d), 0);
	CHECK_INT(manager_add(&m, d), 0);
	d->target = target;
	d->n_links = n_links;
	d->life_fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	d->size = d->info.size = 1 << 20;
	d->block_size = 512;
	return d;
}

static struct device *device(struct target target, size_t n_links)
{
	return device_named("x", target, n_links);
}

static void live(struct device *d, size_t i, const char *peer)
{
	int pair[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	d->links[i].fd = pair[0];
	d->links[i].state = LINK_ALIVE;
	snprintf(d->links[i].peer, sizeof(d->links[i].peer), "%s", peer);
}

static void refuse(struct device *d, size_t i)
{
	d->links[i].connector = NULL;
	d->links[i].state = LINK_IDLE;
	device_event(d, EV_FAILED, &(struct event_detail){
		.link = &d->links[i], .failure = FAILURE_SOON, .text = "refused" });
}

static void lose(struct device *d, size_t i)
{
	device_event(d, EV_LINK_DEAD, &(struct event_detail){ .link = &d->links[i],
							      .text = "closed" });
}

/* Until the next attempt. */
static void wait_dialled(struct device *d, const char *label)
{
	unsigned before = dialled.n;

	for (int i = 0; i < 1000 && dialled.n == before; i++)
		sd_event_run(d->manager->event, 10000);
	CHECK_INT(dialled.n, before + 1);
	CHECK_STR(dialled.label, label);
}

/* ---- one server ----------------------------------------------------------------------- */

TEST(a_link_is_made_anew_where_the_others_are)
{
	struct device *d = device(servers(A, B), 2);

	live(d, 0, A);
	d->state = STATE_CONNECTED;
	live(d, 1, A);
	lose(d, 1);
	wait_dialled(d, A);
	for (int i = 0; i < 3; i++) {
		refuse(d, 1);
		wait_dialled(d, A);
	}
	CHECK_INT(d->state, STATE_DEGRADED);
	lose(d, 0);		/* while link 1 is being tried there */
	refuse(d, 1);
	wait_dialled(d, B);
}

TEST(no_server_is_left_out_when_several_attempts_at_one_fail)
{
	struct device *d = device(servers(A, B), 3);

	live(d, 0, A);
	d->state = STATE_DEGRADED;
	d->links[1].state = d->links[2].state = LINK_CONNECTING;
	lose(d, 0);
	refuse(d, 1);
	CHECK_INT(d->target.current, 0);
	refuse(d, 2);
	wait_dialled(d, B);
}

TEST(a_late_answer_of_the_name_service_leads_no_link_elsewhere)
{
	struct device *d = device(servers(A, B), 2);
	struct target fresh = servers(B, A);

	live(d, 0, A);
	d->state = STATE_DEGRADED;
	one_server_renew(d, &fresh);
	CHECK_STR(target_server(&d->target)->label, A);
	fresh = servers(C, NULL);
	one_server_renew(d, &fresh);
	CHECK_STR(target_server(&d->target)->label, A);
	CHECK(d->resolve_again);
	d->resolved_usec = now_usec();		/* no name is asked for again yet */
	lose(d, 0);
	wait_dialled(d, A);
	fresh = servers(C, NULL);
	one_server_renew(d, &fresh);
	CHECK_INT(dialled.cancelled, 1);
	wait_dialled(d, C);
}

TEST(an_attempt_goes_on_when_its_server_is_still_one)
{
	struct device *d = device(servers(A, B), 1);
	struct target fresh = servers(C, A);

	d->state = STATE_RECONNECTING;
	d->links[0].state = LINK_CONNECTING;
	d->links[0].connector = (void *)&dialled;
	one_server_renew(d, &fresh);
	CHECK_INT(dialled.cancelled, 0);
	CHECK_INT(d->target.current, 1);
	refuse(d, 0);
	wait_dialled(d, C);
}

TEST(all_links_go_to_the_same_address_of_a_name)
{
	struct target t = {};
	struct device *d;

	add_server(&t, "name", (const char *const[]){ A, B, NULL });
	d = device(t, 2);
	live(d, 0, B);
	d->state = STATE_DEGRADED;
	retry_now(d);
	wait_dialled(d, "name");
	CHECK_INT(dialled.n_addresses, 1);
	CHECK_STR(dialled.address, B);
	refuse(d, 1);
	lose(d, 0);
	wait_dialled(d, "name");
	CHECK_INT(dialled.n_addresses, 2);
}

TEST(the_server_of_a_live_link_counts_more_than_what_a_state_says)
{
	struct device *d = device(servers(A, B), 2);

	d->target.current = 1;
	live(d, 0, A);
	d->state = STATE_DEGRADED;
	retry_now(d);
	wait_dialled(d, A);
	CHECK_INT(d->target.current, 0);
}

TEST(a_connection_that_the_kernel_may_have_taken_is_cut_when_an_attach_fails)
{
	struct device *d = device(servers(A, NULL), 1);
	int taken;

	live(d, 0, A);
	taken = dup(d->links[0].fd);		/* the kernel's */
	d->links[0].state = LINK_HANDED;
	d->state = STATE_ATTACHING;
	d->automatic = true;			/* it tries again */
	device_event(d, EV_KERNEL_FAILED, &(struct event_detail){ .call = CALL_CONNECT,
								  .error = -EIO });
	CHECK_INT(d->state, STATE_CONNECTING);
	CHECK_INT(d->links[0].state, LINK_IDLE);
	CHECK_INT(send(taken, "", 1, MSG_NOSIGNAL), -1);
	CHECK_INT(errno, EPIPE);
}

TEST(a_detach_keeps_the_connections_of_which_one_is_in_doubt)
{
	struct device *d = device(servers(A, NULL), 2);
	uint64_t end;

	live(d, 0, A);
	live(d, 1, A);
	d->state = STATE_CONNECTED;
	device_event(d, EV_LINK_DEAD, NULL);	/* the kernel's word alone */
	d->state = STATE_DETACHING;
	for (end = now_usec() + 1500 * USEC_PER_MSEC; now_usec() < end;)
		sd_event_run(d->manager->event, 100 * USEC_PER_MSEC);
	CHECK(!link_hung_up(&d->links[0]) && !link_hung_up(&d->links[1]));
	d->state = STATE_CONNECTED;		/* it was refused */
	for (end += 5 * USEC_PER_SEC; !link_hung_up(&d->links[0]) && now_usec() < end;)
		sd_event_run(d->manager->event, 100 * USEC_PER_MSEC);
	CHECK(link_hung_up(&d->links[0]) && link_hung_up(&d->links[1]));
}

/* ---- connections that do not last ------------------------------------------------------- */

/* All links of D, which was connected, are lost after USEC; the pause before the next attempt. */
static uint64_t last(struct device *d, uint64_t usec)
{
	uint64_t now = now_usec();

	for (size_t i = 0; i < d->n_links; i++) {
		live(d, i, A);
		d->links[i].connector = NULL;
		d->links[i].alive_usec = usec ? now - usec : 0;
	}
	d->backoff.lost_usec = 0;			/* the one before ended earlier */
	d->state = STATE_CONNECTED;
	retry_stop(d);
	retry_reset(d);
	for (size_t i = 0; i < d->n_links; i++)
		lose(d, i);
	CHECK(d->retry_at_usec >= now);
	return d->retry_at_usec - now;
}

#define CHECK_PAUSE(got, msec) do {								\
	uint64_t pause = (got), wanted = (msec) * USEC_PER_MSEC;				\
	CHECK(pause >= wanted && pause < wanted + 60 * USEC_PER_MSEC);				\
} while (0)

static void check_pauses(size_t n_links)
{
	static const unsigned more[] = { 125, 250, 500, 1000, 1000 };
	struct device *d = device(servers(A, NULL), n_links);

	CHECK_PAUSE(last(d, 1), 0);			/* this may be a restart */
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		CHECK_PAUSE(last(d, 1), more[i]);
	CHECK_INT(d->attempts, 0);
	CHECK_INT(d->backoff.failures, 0);
	CHECK_PAUSE(last(d, 1000000), 0);		/* that one has lasted */
	CHECK_PAUSE(last(d, 1), 0);
	CHECK_PAUSE(last(d, 1), 125);
	CHECK_PAUSE(last(d, 0), 0);			/* as one that was taken over */
}

TEST(a_server_that_closes_each_connection_at_once_is_asked_more_and_more_slowly)
{
	check_pauses(1);
}

TEST(after_a_server_that_closes_each_connection_at_once_comes_the_next)
{
	struct device *d = device(servers(A, B), 1);

	last(d, 1);
	wait_dialled(d, A);
	last(d, 1);
	wait_dialled(d, B);
}

TEST(connections_that_are_lost_together_are_one_loss)
{
	check_pauses(3);
}

/* ---- who is served, and when ------------------------------------------------------------- */

static struct device *queued(const char *name, const char *server)
{
	struct device *d = device_named(name, servers(server, NULL), 1);

	d->state = STATE_RECONNECTING;
	d->queued = true;
	return d;
}

/* What was served with so many connectors free. */
static const char *serve(struct manager *m, unsigned n)
{
	memset(dialled.served, 0, sizeof(dialled.served));
	dialled.n = 0;
	dialled.limited = true;
	dialled.free = n;
	retry_queued(m);
	return dialled.served;
}

TEST(who_waits_for_a_connector_gets_one_in_turn)
{
	struct device *d = NULL;

	for (size_t i = 0; i < 5; i++)
		d = queued((const char *const[]){ "a", "b", "c", "d", "e" }[i], A);
	CHECK_STR(serve(d->manager, 2), "ab");
	refuse(d->manager->devices[0], 0);
	d->manager->devices[0]->queued = true;
	CHECK_STR(serve(d->manager, 2), "cd");
	CHECK_STR(serve(d->manager, 1), "e");
	CHECK_STR(serve(d->manager, 1), "a");
	CHECK_STR(serve(d->manager, 1), "");
}

TEST(a_server_that_nobody_asks_comes_before_a_silent_one)
{
	struct device *d = NULL;

	for (size_t i = 0; i < 4; i++)
		d = queued((const char *const[]){ "a", "b", "c", "d" }[i], A);
	CHECK_STR(serve(d->manager, 1), "a");
	queued("e", B);
	queued("f", C);
	CHECK_STR(serve(d->manager, 1), "e");
	CHECK_STR(serve(d->manager, 2), "fb");
	manager_remove(d->manager, d->manager->devices[0]);
	CHECK_STR(serve(d->manager, 8), "cd");
}

/* ---- those that are dialled for together ------------------------------------------------ */

static void done(const struct connector_result *result, void *userdata)
{
}

TEST(who_gathered_for_one_server_is_dialled_for_there)
{
	struct target targets[2] = { servers(A, B), servers(A, NULL) };
	struct tls_plan tls = { .mode = LIBNBD_TLS_DISABLE };
	struct connectors *all;
	struct connector *c;
	sd_event *event;

	CHECK(sd_event_new(&event) >= 0);
	CHECK_INT(connectors_new(event, NULL, NULL, &all), 0);
	for (size_t i = 0; i < 2; i++)
		CHECK_INT(__real_connector_start(all, &(struct connector_spec){
				.name = "x", .target = &targets[i],
				.server = target_server(&targets[i]), .tls = &tls,
				.limit_usec = USEC_PER_SEC, .done = done }, &c), 0);
	targets[0].current = 1;
	while (!dialled.job)
		CHECK(sd_event_run(event, 1000000) > 0);
	CHECK_INT(dialled.job->n, 2);
	for (size_t i = 0; i < 2; i++)
		CHECK_STR(dialled.job->tasks[i].server->label, A);
}
