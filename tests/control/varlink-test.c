/* varlink-test SOCKET: daemon/proto with a few methods, for test_varlink.py. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/proto/message.h"
#include "daemon/proto/varlink.h"
#include "lib/util/clock.h"
#include "lib/util/macro.h"

struct test {
	sd_event *event;
	sd_event_source *ticker;
	struct varlink_call *held;	/* by Hold, until Release */
	struct varlink_call *later[256];	/* by Later, until All */
	size_t n_later;
	struct varlink_call *watch;	/* by Watch, until it leaves */
	uint64_t gone;			/* calls whose clients left */
	uint64_t ticks;
	size_t notify_size;
	uint64_t echoes;
	sd_event_source *work;		/* what a server does besides answering */
	struct varlink_call *worker;
	unsigned rounds;		/* of it that are left */
	uint64_t seen, most;		/* echoes at the last one; between two of them */
};

static struct json_object *number(const char *key, uint64_t value)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, key, json_object_new_uint64(value));
	return o;
}

/* Replies its own parameters. */
static void echo(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;

	t->echoes++;
	varlink_call_reply(call, json_object_get(params));
}

static void root_only(struct varlink_call *call, struct json_object *params, void *userdata)
{
	varlink_call_reply(call, number("uid", varlink_call_peer(call)->uid));
}

static struct json_object *text_of(size_t n)
{
	struct json_object *o = json_object_new_object();
	char *text = malloc(n + 1);

	if (!text)
		abort();
	memset(text, 'x', n);
	json_object_object_add(o, "text", json_object_new_string_len(text, (int)n));
	free(text);
	return o;
}

/* Replies `size` bytes of text. */
static void big(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct json_object *size = NULL;

	json_object_object_get_ex(params, "size", &size);
	varlink_call_reply(call, text_of((size_t)json_object_get_int64(size)));
}

/* Replies a megabyte, as all others of its kind, when All is called; not for who leaves. */
static void later(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;

	if (t->n_later < ARRAY_SIZE(t->later))
		t->later[t->n_later++] = call;
	else
		varlink_call_drop(call);
}

static void all(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;
	size_t n = t->n_later;

	while (t->n_later)
		varlink_call_reply(t->later[--t->n_later], text_of(1000000));
	varlink_call_reply(call, number("ended", n));
}

static void held_gone(struct varlink_call *call, void *userdata)
{
	struct test *t = userdata;

	t->gone++;
	t->held = NULL;
	varlink_call_drop(call);
}

/* Is not answered before Release. */
static void hold(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;

	if (t->held) {
		varlink_call_error(call, "io.nbdd.Test.Busy", NULL);
		return;
	}
	t->held = call;
	varlink_call_set_gone(call, held_gone, t);
}

static void do_release(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;
	bool held = t->held;

	if (held)
		varlink_call_reply(STEAL_PTR(t->held), number("released", 1));
	varlink_call_reply(call, number("held", held));
}

/* As hold, but does not want to know when its client leaves. */
static void hold_blindly(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;

	t->held = call;
}

static void watch_gone(struct varlink_call *call, void *userdata)
{
	struct test *t = userdata;

	t->gone++;
	t->watch = NULL;
	sd_event_source_set_enabled(t->ticker, SD_EVENT_OFF);
	varlink_call_drop(call);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct test *t = userdata;
	struct json_object *o = number("tick", ++t->ticks);
	char *pad = malloc(t->notify_size + 1);

	if (!pad)
		abort();
	memset(pad, '.', t->notify_size);
	json_object_object_add(o, "pad",
			       json_object_new_string_len(pad, (int)t->notify_size));
	free(pad);
	varlink_call_notify(t->watch, o);
	sd_event_source_set_time_relative(source, 5 * USEC_PER_MSEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* Notifies every 5 ms, `pad` bytes each, until the client leaves. */
static void watch(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;
	struct json_object *pad = NULL;

	if (!varlink_call_wants_more(call)) {
		varlink_call_error(call, "org.varlink.service.ExpectedMore", NULL);
		return;
	}
	json_object_object_get_ex(params, "pad", &pad);
	t->notify_size = (size_t)json_object_get_int64(pad);
	t->watch = call;
	varlink_call_set_gone(call, watch_gone, t);
	sd_event_source_set_time_relative(t->ticker, 0);
	sd_event_source_set_enabled(t->ticker, SD_EVENT_ONESHOT);
}

static void stop_watch(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;

	sd_event_source_set_enabled(t->ticker, SD_EVENT_OFF);
	if (t->watch)
		varlink_call_reply(STEAL_PTR(t->watch), number("tick", t->ticks));
	varlink_call_reply(call, NULL);
}

static int on_work(sd_event_source *source, void *userdata)
{
	struct test *t = userdata;

	t->most = MAX(t->most, t->echoes - t->seen);
	t->seen = t->echoes;
	if (--t->rounds)
		return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	varlink_call_reply(STEAL_PTR(t->worker), number("most", t->most));
	return 0;
}

/* Works for 50 rounds of the loop, and replies how many echoes came at most in between. */
static void work(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;

	t->worker = call;
	t->rounds = 50;
	t->most = 0;
	t->seen = t->echoes;
	sd_event_source_set_enabled(t->work, SD_EVENT_ONESHOT);
}

static void state(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct test *t = userdata;
	struct json_object *o = number("gone", t->gone);

	json_object_object_add(o, "held", json_object_new_boolean(t->held != NULL));
	json_object_object_add(o, "later", json_object_new_uint64(t->n_later));
	json_object_object_add(o, "ticks", json_object_new_uint64(t->ticks));
	json_object_object_add(o, "echoes", json_object_new_uint64(t->echoes));
	varlink_call_reply(call, o);
}

/* Text as a hostile server may have given it. */
static void odd_text(struct varlink_call *call, struct json_object *params, void *userdata)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "text", json_object_new_string("a\xff\xc3(\x1b[31m\xc3\xa9"));
	varlink_call_reply(call, o);
}

static void drop(struct varlink_call *call, struct json_object *params, void *userdata)
{
	varlink_call_drop(call);
}

static void typed(struct varlink_call *call, struct json_object *params, void *userdata)
{
	const char *name = NULL, *other = "default";
	bool flag = false;

	if (!varlink_param_string(call, params, "name", true, &name) ||
	    !varlink_param_string(call, params, "other", false, &other) ||
	    !varlink_param_bool(call, params, "flag", &flag))
		return;
	struct json_object *o = number("flag", flag);

	json_object_object_add(o, "name", json_object_new_string(name));
	json_object_object_add(o, "other", json_object_new_string(other));
	varlink_call_reply(call, o);
}

static const struct varlink_method methods[] = {
	{ "Echo", false, echo },	{ "RootOnly", true, root_only },
	{ "Big", false, big },		{ "Hold", false, hold },
	{ "Release", false, do_release }, { "HoldBlindly", false, hold_blindly },
	{ "Watch", false, watch },	{ "StopWatch", false, stop_watch },
	{ "State", false, state },	{ "OddText", false, odd_text },
	{ "Drop", false, drop },	{ "Typed", false, typed },
	{ "Work", true, work },
	{ "Later", false, later },	{ "All", true, all },
};

static const struct varlink_interface iface = {
	"io.nbdd.Test", "interface io.nbdd.Test\n", methods, ARRAY_SIZE(methods),
};

static void log_line(const char *text, void *userdata)
{
	fprintf(stderr, "%s\n", text);
}

static int listen_on(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    chmod(path, 0666) < 0 || listen(fd, 128) < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

static int run(struct test *t, int fd)
{
	struct varlink_server *server;
	sigset_t stop;
	int r;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	r = sd_event_new(&t->event);
	if (r >= 0)
		r = sd_event_add_signal(t->event, NULL, SIGTERM, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_time(t->event, &t->ticker, CLOCK_MONOTONIC, 0, 0, on_tick, t);
	if (r >= 0)
		r = sd_event_source_set_enabled(t->ticker, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_defer(t->event, &t->work, on_work, t);
	if (r >= 0)
		r = sd_event_source_set_enabled(t->work, SD_EVENT_OFF);
	if (r >= 0)
		r = varlink_server_new(t->event, fd, &iface, t, &server);
	if (r < 0)
		return r;
	varlink_server_set_log(server, log_line, NULL);
	r = sd_event_loop(t->event);
	varlink_server_free(server);
	if (t->held)
		varlink_call_drop(t->held);
	sd_event_source_unref(t->ticker);
	sd_event_source_unref(t->work);
	sd_event_unref(t->event);
	return r;
}

int main(int argc, char **argv)
{
	struct test t = { 0 };
	int r;

	if (argc != 2)
		return 2;
	r = run(&t, listen_on(argv[1]));
	if (r < 0)
		fprintf(stderr, "%s\n", strerror(-r));
	return r < 0;
}
