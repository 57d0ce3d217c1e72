/* One client of the server.  Everything that can end a connection happens in the event
 * loop, in pump(): a handler that answers or notifies never sees it freed under its feet.
 *
 * While a call is being answered or a reply lies unread nothing is read: pipelined calls
 * wait in the socket, whose buffer the kernel bounds. */
#include "daemon/proto/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/util/cleanup.h"
#include "lib/util/rights.h"

#define READ_CHUNK	(16u << 10)
#define STEPS_PER_TURN	16		/* then other clients have theirs */

/* Bring the server's total up to date; false: the client may not have that much. */
static bool count_memory(struct varlink_connection *c)
{
	size_t now = c->in.capacity + c->out.capacity + c->newest.capacity;

	c->server->total += now - c->counted;
	c->counted = now;
	return varlink_server_allows(c->server, c->peer.uid, c->server->total);
}

void varlink_connection_cut(struct varlink_connection *c, const char *format, ...)
{
	char why[256];
	va_list args;

	if (c->closing)
		return;
	c->closing = true;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	varlink_server_log(c->server, "control socket: closed the connection of pid %d, "
			   "uid %u: %s", (int)c->peer.pid, (unsigned)c->peer.uid, why);
}

void varlink_connection_wake(struct varlink_connection *c)
{
	/* Fails only for a loop that has ended. */
	(void)sd_event_source_set_enabled(c->defer, SD_EVENT_ONESHOT);
}

static void drop_output(struct varlink_connection *c)
{
	buffer_clear(&c->out);
	buffer_clear(&c->newest);
	c->out_start = 0;
}

int varlink_connection_send(struct varlink_connection *c, struct json_object *o,
			    bool newest)
{
	_cleanup_json_ struct json_object *object = o;
	struct buffer *b = newest && c->out.len ? &c->newest : &c->out;
	size_t len;
	const char *text;
	int r;

	text = json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN |
						 JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	if (!text)
		return -ENOMEM;
	if (len > VARLINK_REPLY_MAX)
		return -EMSGSIZE;
	if (b == &c->newest || !newest)
		c->newest.len = 0;
	r = buffer_append(b, text, len + 1);
	if (r < 0)
		return r == -ENOBUFS ? -EMSGSIZE : r;
	varlink_make_utf8((char *)b->data + b->len - len - 1, len);
	if (count_memory(c))
		return 0;
	/* Its client is cut off, and may be one of many: none keeps what it may not have. */
	drop_output(c);
	(void)count_memory(c);
	return -ENOMEM;
}

/* What waits behind the output that has been sent takes its place. */
static void next_output(struct varlink_connection *c)
{
	buffer_clear(&c->out);
	c->out_start = 0;
	if (c->newest.len) {
		c->out = c->newest;
		c->newest = BUFFER_NULL(c->out.max);
	} else {
		buffer_clear(&c->newest);
	}
	(void)count_memory(c);
}

/* Send what is queued: 1 when all is gone, 0 when the socket is full, -errno. */
static int flush_output(struct varlink_connection *c)
{
	while (c->out.len) {
		ssize_t n = send(c->fd, c->out.data + c->out_start,
				 c->out.len - c->out_start, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out_start += (size_t)n;
		sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
		if (c->out_start == c->out.len)
			next_output(c);
	}
	return 1;
}

/* The length of the complete message at the front of IN, or -1. */
static ssize_t find_message(struct varlink_connection *c)
{
	uint8_t *end;

	c->in_scanned = MAX(c->in_scanned, c->in_start);
	if (c->in_scanned == c->in.len)
		return -1;
	end = memchr(c->in.data + c->in_scanned, '\0', c->in.len - c->in_scanned);
	if (!end) {
		c->in_scanned = c->in.len;
		return -1;
	}
	return end - (c->in.data + c->in_start);
}

/* Take in what has come: 1, 0 when nothing waits, -errno.  Sets at_end. */
static int read_input(struct varlink_connection *c)
{
	size_t room;
	ssize_t n;
	int r;

	buffer_consume(&c->in, c->in_start);
	c->in_scanned -= c->in_start;
	c->in_start = 0;
	room = MIN(c->in.max - c->in.len, (size_t)READ_CHUNK);
	if (!room)
		return -EMSGSIZE;
	r = buffer_reserve(&c->in, room);
	if (r < 0 || !count_memory(c))
		return r < 0 ? r : -ENOBUFS;
	n = rights_recv(c->fd, c->in.data + c->in.len, room);
	if (n == -EAGAIN || n == -EINTR)
		return n == -EAGAIN ? 0 : 1;
	if (n == -EBADMSG)
		return (int)n;
	if (n > 0)
		c->in.len += (size_t)n;
	else
		c->at_end = true;
	return 1;
}

/* Wait for EVENTS, no longer than LIMIT (USEC_INFINITY: as long as it takes).  A limit
 * that runs already stays, so that nobody wins time by a byte now and then. */
static void await(struct varlink_connection *c, uint32_t events, uint64_t limit)
{
	int running = SD_EVENT_OFF;

	/* These fail only without memory, or in a loop that has ended. */
	(void)sd_event_source_set_io_events(c->io, events);
	(void)sd_event_source_get_enabled(c->timer, &running);
	if (limit == USEC_INFINITY) {
		(void)sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	} else if (running == SD_EVENT_OFF) {
		(void)sd_event_source_set_time_relative(c->timer, limit);
		(void)sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
	}
}

/* Wait for the rest of a message, or for a next one; an idle client costs no memory. */
static void await_input(struct varlink_connection *c)
{
	if (!c->in.len) {
		buffer_clear(&c->in);
		c->in_scanned = 0;
		(void)count_memory(c);
	}
	await(c, EPOLLIN, c->in.len ? VARLINK_HALF_USEC : USEC_INFINITY);
}

/* A call costs what its method costs: a turn has one. */
enum step { STEP_AGAIN, STEP_NEXT_TURN, STEP_WAIT, STEP_END };

/* Send, and if all is sent go on to what comes next. */
static enum step step_output(struct varlink_connection *c)
{
	int r;

	if (c->hung_up)
		drop_output(c);
	r = flush_output(c);
	if (r < 0) {
		c->hung_up = true;
		drop_output(c);
	}
	if (r)
		return STEP_AGAIN;
	await(c, EPOLLOUT, VARLINK_UNREAD_USEC);
	return STEP_WAIT;
}

/* The input has ended: with a whole message, or in the middle of one. */
static enum step step_end(struct varlink_connection *c)
{
	if (c->in.len > c->in_start)
		varlink_connection_cut(c, "it left in the middle of a message");
	return STEP_END;
}

/* What it has sent makes room for the word that says so. */
static void reject_unheard(struct varlink_connection *c)
{
	buffer_clear(&c->in);
	c->in_scanned = 0;
	(void)count_memory(c);
	varlink_connection_reject(c, "there is no memory for the message");
}

static enum step step_input(struct varlink_connection *c)
{
	ssize_t len = find_message(c);
	int r;

	if (len >= 0) {
		const char *text = (const char *)c->in.data + c->in_start;

		/* The time that one message may take has ended with it. */
		sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
		c->in_start += (size_t)len + 1;
		varlink_call_begin(c, text, (size_t)len);
		return STEP_NEXT_TURN;
	}
	if (c->at_end)
		return step_end(c);
	r = read_input(c);
	if (r == -EMSGSIZE)
		varlink_connection_reject(c, "the message is longer than 1 MiB");
	else if (r == -EBADMSG)
		varlink_connection_reject(c, "it sent a descriptor, and there are none in calls");
	else if (r < 0)
		reject_unheard(c);
	if (r)
		return STEP_AGAIN;
	await_input(c);
	return STEP_WAIT;
}

static enum step step(struct varlink_connection *c)
{
	if (step_output(c) == STEP_WAIT)
		return STEP_WAIT;
	if (c->closing)
		return STEP_END;
	if (!c->call)
		return step_input(c);
	if (c->hung_up)
		varlink_call_gone(c);
	if (!c->call || varlink_call_drained(c))
		return STEP_AGAIN;
	await(c, 0, USEC_INFINITY);
	return STEP_WAIT;
}

static void pump(struct varlink_connection *c)
{
	enum step next = STEP_AGAIN;

	for (unsigned i = 0; i < STEPS_PER_TURN && next == STEP_AGAIN; i++)
		switch (next = step(c)) {
		case STEP_AGAIN:
		case STEP_NEXT_TURN:
			break;
		case STEP_WAIT:
			return;
		case STEP_END:
			varlink_connection_free(c);
			return;
		}
	varlink_connection_wake(c);
}

void varlink_connection_reject(struct varlink_connection *c, const char *why)
{
	struct json_object *reply = varlink_error_object(
		VARLINK_INVALID_PARAMETER, varlink_invalid_object("message", why));

	if (reply)
		(void)varlink_connection_send(c, reply, false);
	varlink_connection_cut(c, "%s", why);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct varlink_connection *c = userdata;

	/* Both directions are shut (a Unix stream whose peer has closed).  This event
	 * cannot be masked; what has come can still be read, without waiting. */
	if (events & (EPOLLHUP | EPOLLERR)) {
		c->hung_up = true;
		sd_event_source_set_enabled(c->io, SD_EVENT_OFF);
	}
	pump(c);
	return 0;
}

static int on_defer(sd_event_source *source, void *userdata)
{
	pump(userdata);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct varlink_connection *c = userdata;

	varlink_connection_cut(c, "%s", c->out.len ? "it does not read its replies"
			       : "it did not finish a message within 30 s");
	varlink_connection_free(c);
	return 0;
}

/* What the server does besides, such as to see a device's connection die, comes before what
 * it is asked by who may only look; who may change something has turns with it. */
static int set_priorities(struct varlink_connection *c)
{
	bool trusted = c->peer.uid == 0 || c->peer.uid == geteuid();
	int64_t priority = trusted ? VARLINK_PRIORITY_ROOT : VARLINK_PRIORITY;
	int r = sd_event_source_set_priority(c->io, priority);

	if (r >= 0)
		r = sd_event_source_set_priority(c->defer, priority);
	return r < 0 ? r : sd_event_source_set_priority(c->timer, priority);
}

static int add_sources(struct varlink_connection *c)
{
	sd_event *event = c->server->event;
	int r;

	r = sd_event_add_io(event, &c->io, c->fd, EPOLLIN, on_io, c);
	if (r >= 0)
		r = sd_event_add_defer(event, &c->defer, on_defer, c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->defer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, 0, 0, on_timer,
				      c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	return r < 0 ? r : set_priorities(c);
}

int varlink_connection_new(struct varlink_server *s, int fd, const struct ucred *peer)
{
	struct varlink_connection *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct varlink_connection){
		.server = s, .fd = -1, .peer = *peer,
		.in = BUFFER_NULL(VARLINK_CALL_MAX + 1),
		.out = BUFFER_NULL(2 * (VARLINK_REPLY_MAX + 1)),
		.newest = BUFFER_NULL(2 * (VARLINK_REPLY_MAX + 1)),
	};
	LIST_INSERT_HEAD(&s->connections, c, link);
	s->n_connections++;
	c->fd = fd;
	r = add_sources(c);
	if (r < 0) {
		c->fd = -1;	/* stays the caller's */
		varlink_connection_free(c);
	}
	return r;
}

void varlink_connection_free(struct varlink_connection *c)
{
	c->closing = c->hung_up = true;
	varlink_call_gone(c);
	if (c->call)
		c->call->connection = NULL;
	sd_event_source_disable_unref(c->io);
	sd_event_source_disable_unref(c->defer);
	sd_event_source_disable_unref(c->timer);
	varlink_server_close(c->server, c->fd);
	drop_output(c);
	buffer_clear(&c->in);
	(void)count_memory(c);
	LIST_REMOVE(c, link);
	c->server->n_connections--;
	free(c);
}
