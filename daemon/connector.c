/* Connectors: one attempt at a connection each, in a process of its own; or, when many wait
 * for the same server, a few of them in one. */
#include "daemon/connector.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libnbd.h>
#include "daemon/connector_child.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"

#define PROCESSES_MAX	32		/* at a time */

/* One process, and whom it works for. */
struct group {
	struct connectors *all;
	struct server server;		/* of all members, as it was when the first came */
	struct nbdd_address addresses[TARGET_ADDRESSES_MAX];	/* of it */
	struct connector_job job;	/* valid until it is written down */
	struct job order;		/* ... here */
	struct connector *members[CONNECTOR_TASKS_MAX];	/* NULL: answered, or cancelled */
	size_t waiting;			/* members that are not */
	uint32_t answered;		/* a bit a task */
	uint64_t limit_usec;
	char what[16];
	struct child *child;		/* NULL: it gathers, or has ended */
	bool handling;			/* an answer */
	struct group *next;		/* of those that gather */
};

struct connector {
	struct group *group;
	size_t place;
	char label[TARGET_HOST_MAX + 10];
	uint64_t limit_usec;
	connector_done_fn done;
	void *userdata;
};

struct connectors {
	sd_event *event;
	struct spawner *spawner;
	const struct sandbox *sandbox;
	unsigned n_groups;
	struct group *gathering;
	sd_event_source *start;
};

/* ---- what a process answers --------------------------------------------------------- */

static bool usable_socket(int fd)
{
	int type = 0, domain = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return false;
	len = sizeof(domain);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0)
		return false;
	return domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX ||
	       domain == AF_VSOCK;
}

static void _printf_(3, 4) fail(struct connector_result *r, enum connect_failure failure,
				const char *format, ...)
{
	va_list ap;

	r->failure = failure;
	va_start(ap, format);
	vsnprintf(r->message, sizeof(r->message), format, ap);
	va_end(ap);
}

/* The child has met the server's bytes: believe nothing that was not checked. */
static void check_answer(const struct child_answer *answer, struct connection *connection,
			 const struct connector *c, struct connector_result *r)
{
	char limit[FORMAT_MAX];
	const struct connect_answer *a = answer->data;

	if (answer->error == -ETIMEDOUT)
		fail(r, FAILURE_BACKOFF, "%s: no negotiated connection within %s "
		     "(connect-timeout)", c->label, format_usec(limit, c->limit_usec));
	else if (answer->error == -ECHILD || answer->error == -EPROTO)
		fail(r, FAILURE_BACKOFF, "the connector process died");
	else if (answer->error < 0)
		fail(r, FAILURE_BACKOFF, "no connector process: %s",
		     child_strerror(answer->error));
	else if (a->error) {
		r->failure = MIN(a->failure, (uint32_t)FAILURE_PERMANENT);
		clean_text(r->message, sizeof(r->message), a->message,
			    strnlen(a->message, sizeof(a->message)));
		clean_text(r->kernel_tls, sizeof(r->kernel_tls), a->tls.why_not,
			   strnlen(a->tls.why_not, sizeof(a->tls.why_not)));
	} else if (answer->fd < 0 || !usable_socket(answer->fd))
		fail(r, FAILURE_PERMANENT, "the connector process sent no usable socket");
	else if (a->info.size == 0 || a->info.size > INT64_MAX)
		fail(r, FAILURE_PERMANENT,
		     "server offers a size of %llu bytes, expected 1 to %lld",
		     (unsigned long long)a->info.size, (long long)INT64_MAX);
	else if (a->digests.n > SAMPLES_MAX)
		fail(r, FAILURE_PERMANENT, "the connector process sent %u digests, at most "
		     "%d are possible", a->digests.n, SAMPLES_MAX);
	else {
		r->digests = &a->digests;
		*connection = (struct connection){ .fd = answer->fd, .info = a->info,
						   .tls = a->tls, .state = a->state };
		link_tls_clean(&connection->tls);
		r->connection = connection;
	}
	if (!r->connection)
		fd_close(answer->fd);
}

static void give(struct connector *c, const struct child_answer *answer)
{
	connector_done_fn done = c->done;
	void *userdata = c->userdata;
	struct connector_result result = {};
	struct connection connection;

	check_answer(answer, &connection, c, &result);
	free(c);
	done(&result, userdata);
	if (result.connection)
		explicit_bzero(&connection.state, sizeof(connection.state));
}

static void forget_gathering(struct group *g)
{
	for (struct group **p = &g->all->gathering; *p; p = &(*p)->next)
		if (*p == g) {
			*p = g->next;
			return;
		}
}

/* It goes when nobody waits for it. */
static void group_release(struct group *g)
{
	if (g->handling || g->waiting)
		return;
	forget_gathering(g);
	child_cancel(g->child);
	job_free(&g->order);
	g->all->n_groups--;
	free(g);
}

static struct connector *take_member(struct group *g, size_t place)
{
	struct connector *c = g->members[place];

	g->members[place] = NULL;
	g->waiting -= c != NULL;
	return c;
}

/* Nothing comes any more. */
static void fail_all(struct group *g, int error)
{
	for (size_t i = 0; i < g->job.n; i++) {
		struct connector *c = take_member(g, i);

		if (c)
			give(c, &(struct child_answer){ .error = error, .fd = -1 });
	}
}

/* Which task is it about?  -1: none that it could be. */
static int place_of(const struct group *g, const struct child_answer *answer)
{
	const struct connect_answer *a = answer->data;

	if (answer->len != sizeof(*a) || a->place >= g->job.n ||
	    (g->answered & (UINT32_C(1) << a->place)))
		return -1;
	return (int)a->place;
}

static void on_answer(const struct child_answer *answer, void *userdata)
{
	struct group *g = userdata;
	int place = answer->error ? -1 : place_of(g, answer);
	struct connector *c = NULL;

	g->handling = true;
	if (place < 0) {
		fd_close(answer->fd);
		g->child = child_cancel(g->child);
		fail_all(g, answer->error ? answer->error : -EPROTO);
	} else {
		g->answered |= UINT32_C(1) << place;
		c = take_member(g, (size_t)place);
	}
	if (c)
		give(c, answer);
	else if (place >= 0)
		fd_close(answer->fd);
	g->handling = false;
	group_release(g);
}

/* ---- who goes together -------------------------------------------------------------- */

static bool alone(const struct connector_spec *s)
{
	return s->tls->mode != LIBNBD_TLS_DISABLE || s->samples || s->target->preinit_size ||
	       server_is_local(s->server);
}

static struct group *find_group(const struct connectors *all, const struct connector_spec *s)
{
	for (struct group *g = all->gathering; g; g = g->next)
		if (g->job.n < CONNECTOR_TASKS_MAX && g->limit_usec == s->limit_usec &&
		    server_same(&g->server, s->server))
			return g;
	return NULL;
}

/* KEPT: the connected socket of a path, or -1. */
static int group_spawn(struct group *g, int kept)
{
	return child_start(g->all->event, &(struct child_spec){
				.what = g->what, .spawner = g->all->spawner,
				.role = SANDBOX_DIAL, .job = g->order.fd, .kept = kept,
				.limit_usec = g->limit_usec, .answers = g->job.n },
			on_answer, g, &g->child);
}

static void group_fail(struct group *g, int error)
{
	g->handling = true;
	fail_all(g, error);
	g->handling = false;
	group_release(g);
}

/* The socket of a path, or why there is none. */
static void on_reached(const struct child_answer *answer, void *userdata)
{
	const int32_t *error = answer->data;
	struct connect_answer a = {};
	struct group *g = userdata;
	int r = 0;

	g->child = NULL;
	if (answer->error || answer->len != sizeof(*error) || (!*error && answer->fd < 0)) {
		r = answer->error ? answer->error : -EPROTO;
	} else if (*error) {
		connector_not_reached(&a, &g->server, *error);
		on_answer(&(struct child_answer){ .data = &a, .len = sizeof(a), .fd = -1 }, g);
	} else {
		r = group_spawn(g, answer->fd);
	}
	fd_close(answer->fd);
	if (r < 0)
		group_fail(g, r);
}

/* A path may be on the very disk that is away, and its permissions are for root. */
static int group_reach(struct group *g)
{
	char what[sizeof(g->what)];

	snprintf(what, sizeof(what), "reach %s", g->what + strlen("connect "));
	return child_start(g->all->event, &(struct child_spec){
				.what = what, .sandbox = g->all->sandbox,
				.role = SANDBOX_REACH, .run = connector_reach,
				.arg = &g->server, .limit_usec = g->limit_usec },
			on_reached, g, &g->child);
}

/* The job is written down before anything is waited for: a reload replaces the texts that it
 * points to, and a resolver those of its target. */
static int group_fork(struct group *g)
{
	int r = connector_job_write(&g->job, &g->order);

	if (r < 0)
		return r;
	return g->addresses[0].addr.ss_family == AF_UNIX ? group_reach(g) : group_spawn(g, -1);
}

/* Whoever left before is not dialled for. */
static void drop_cancelled(struct group *g)
{
	size_t n = 0;

	for (size_t i = 0; i < g->job.n; i++) {
		if (!g->members[i])
			continue;
		g->job.tasks[n] = g->job.tasks[i];
		g->members[n] = g->members[i];
		g->members[n]->place = n;
		n++;
	}
	g->job.n = n;
}

/* A timer that was set when the first was dispatched: sd-event dispatches before it whatever
 * was due then, so all whose turn came with that of the first have been here. */
static int on_start(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct connectors *all = userdata;
	struct group *g;
	int r;

	while ((g = all->gathering)) {
		all->gathering = g->next;
		drop_cancelled(g);
		r = group_fork(g);
		if (r < 0)
			group_fail(g, r);
	}
	return 0;
}

/* A device may go over to another of its servers while a group gathers. */
static void keep_server(struct group *g, const struct server *s)
{
	g->server = *s;
	g->server.n_addresses = MIN(s->n_addresses, ARRAY_SIZE(g->addresses));
	memcpy(g->addresses, s->addresses, g->server.n_addresses * sizeof(*s->addresses));
	g->server.addresses = g->addresses;
}

static struct group *group_new(struct connectors *all, const struct connector_spec *s)
{
	struct group *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->all = all;
	g->order = JOB_NULL;
	g->limit_usec = s->limit_usec;
	keep_server(g, s->server);
	snprintf(g->what, sizeof(g->what), "connect %s", s->name);
	all->n_groups++;
	return g;
}

static void add_member(struct group *g, struct connector *c, const struct connector_spec *s)
{
	c->group = g;
	c->place = g->job.n++;
	g->job.tasks[c->place] = (struct connector_task){
		.server = &g->server, .target = s->target, .tls = *s->tls,
		.samples = s->samples };
	g->members[c->place] = c;
	g->waiting++;
}

static struct connector *connector_new(const struct connector_spec *s)
{
	struct connector *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	memcpy(c->label, s->server->label, sizeof(c->label));
	c->limit_usec = s->limit_usec;
	c->done = s->done;
	c->userdata = s->userdata;
	return c;
}

/* One that goes alone begins at once, others a moment later. */
static int group_begin(struct group *g, bool at_once)
{
	int r;

	if (at_once)
		return group_fork(g);
	g->next = g->all->gathering;
	g->all->gathering = g;
	if (g->next)
		return 0;		/* the timer is set */
	r = sd_event_source_set_time_relative(g->all->start, 0);
	return r < 0 ? r : sd_event_source_set_enabled(g->all->start, SD_EVENT_ONESHOT);
}

int connector_start(struct connectors *all, const struct connector_spec *s,
		    struct connector **ret)
{
	struct group *g = alone(s) ? NULL : find_group(all, s);
	bool fresh = !g;
	struct connector *c;
	int r = 0;

	if (fresh && all->n_groups >= PROCESSES_MAX)
		return -EAGAIN;
	c = connector_new(s);
	if (fresh && c)
		g = group_new(all, s);
	if (!c || !g) {
		free(c);
		return -ENOMEM;
	}
	add_member(g, c, s);
	if (fresh)
		r = group_begin(g, alone(s));
	if (r < 0) {
		connector_cancel(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct connector *connector_cancel(struct connector *c)
{
	if (c) {
		take_member(c->group, c->place);
		group_release(c->group);
		free(c);
	}
	return NULL;
}

bool connectors_busy(const struct connectors *all)
{
	for (const struct group *g = all->gathering; g; g = g->next)
		if (g->job.n < CONNECTOR_TASKS_MAX)
			return false;
	return all->n_groups >= PROCESSES_MAX;
}

int connectors_new(sd_event *event, struct spawner *spawner, const struct sandbox *sandbox,
		   struct connectors **ret)
{
	struct connectors *all = calloc(1, sizeof(*all));
	int r;

	if (!all)
		return -ENOMEM;
	all->event = event;
	all->spawner = spawner;
	all->sandbox = sandbox;
	r = sd_event_add_time_relative(event, &all->start, CLOCK_MONOTONIC, 0, 1, on_start, all);
	if (r >= 0)
		r = sd_event_source_set_enabled(all->start, SD_EVENT_OFF);
	if (r < 0) {
		connectors_free(all);
		return r;
	}
	*ret = all;
	return 0;
}

void connectors_free(struct connectors *all)
{
	if (!all)
		return;
	sd_event_source_disable_unref(all->start);
	free(all);
}
