/* The blocking client. */
#include "daemon/proto/varlink.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/proto/message.h"
#include "lib/util/buffer.h"
#include "lib/util/cleanup.h"

#define READ_CHUNK (64u << 10)

struct varlink_client {
	int fd;
	struct buffer in;
	bool broken;		/* a call was left before its last reply */
};

int varlink_client_connect(const char *path, struct varlink_client **ret)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	struct varlink_client *c;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->fd = STEAL_FD(fd);
	c->in = BUFFER_NULL(VARLINK_REPLY_MAX + 1);
	*ret = c;
	return 0;
}

void varlink_client_close(struct varlink_client *c)
{
	if (!c)
		return;
	fd_close(c->fd);
	buffer_clear(&c->in);
	free(c);
}

/* The request as JSON text, held by *RET. */
static int build_call(const struct varlink_request *q, struct json_object **ret)
{
	_cleanup_json_ struct json_object *o = json_object_new_object();
	_cleanup_json_ struct json_object *params = q->params;
	int r;

	r = varlink_json_add(o, "method", json_object_new_string(q->method));
	if (r >= 0 && params)
		r = varlink_json_add(o, "parameters", STEAL_PTR(params));
	if (r >= 0 && q->more)
		r = varlink_json_add(o, "more", json_object_new_boolean(true));
	if (r >= 0)
		*ret = STEAL_PTR(o);
	return r;
}

/* Wait for EVENTS until DEADLINE, with the caller's ticks.  1: they are there. */
static int wait_for(struct varlink_client *c, const struct varlink_request *q,
		    short events, uint64_t deadline)
{
	struct pollfd p = { .fd = c->fd, .events = events };

	for (;;) {
		uint64_t left = usec_sub(deadline, now_usec());
		uint64_t wait = q->tick ? MIN(left, q->tick_usec) : left;
		struct timespec t = { (time_t)(wait / USEC_PER_SEC),
				      (long)(wait % USEC_PER_SEC * 1000) };
		int r = ppoll(&p, 1, wait == USEC_INFINITY ? NULL : &t, NULL);

		if (r < 0)
			return -errno;
		if (r > 0)
			return 1;
		if (!left)
			return -ETIMEDOUT;
		r = q->tick ? q->tick(q->userdata) : 0;
		if (r)
			return r < 0 ? r : -ECANCELED;
	}
}

/* A server that refuses a call closes while it is being sent; its reason can be read. */
static int send_call(struct varlink_client *c, const struct varlink_request *q,
		     const char *text, size_t len)
{
	uint64_t deadline = usec_add(now_usec(), q->timeout_usec);

	while (len) {
		ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r;

		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return 0;
		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n > 0) {
			text += n;
			len -= (size_t)n;
			continue;
		}
		r = wait_for(c, q, POLLOUT, deadline);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Wait for one whole message in the buffer; its length without the NUL. */
static ssize_t receive(struct varlink_client *c, const struct varlink_request *q)
{
	uint64_t deadline = usec_add(now_usec(), q->timeout_usec);
	size_t scanned = 0;

	for (;;) {
		uint8_t *end = c->in.len > scanned ?
			memchr(c->in.data + scanned, '\0', c->in.len - scanned) : NULL;
		size_t room = MIN(c->in.max - c->in.len, (size_t)READ_CHUNK);
		ssize_t n;
		int r;

		if (end)
			return end - c->in.data;
		scanned = c->in.len;
		if (!room)
			return -EMSGSIZE;
		r = wait_for(c, q, POLLIN, deadline);
		if (r >= 0)
			r = buffer_reserve(&c->in, room);
		if (r < 0)
			return r;
		n = recv(c->fd, c->in.data + c->in.len, room, 0);
		if (n <= 0)
			return n ? -errno : -ECONNRESET;
		c->in.len += (size_t)n;
	}
}

/* Hand the reply at the front of the buffer on.  1: more are to come. */
static int take_reply(struct varlink_client *c, const struct varlink_request *q,
		      size_t len, int *ret_result)
{
	_cleanup_json_ struct json_object *root = NULL, *none = NULL;
	struct json_object *params = NULL, *error = NULL, *continues = NULL;
	const char *why;
	int r;

	r = varlink_parse((char *)c->in.data, len, &varlink_reply_limits, &root, &why);
	buffer_consume(&c->in, len + 1);
	if (r < 0)
		return r == -ENOMEM ? r : -EPROTO;
	json_object_object_get_ex(root, "parameters", &params);
	json_object_object_get_ex(root, "error", &error);
	json_object_object_get_ex(root, "continues", &continues);
	if (!params)
		params = none = json_object_new_object();
	if (!json_object_is_type(params, json_type_object) ||
	    (error && !json_object_is_type(error, json_type_string)))
		return -EPROTO;
	*ret_result = q->reply(params, error ? json_object_get_string(error) : NULL,
			       q->userdata);
	return !error && json_object_get_boolean(continues);
}

static int exchange(struct varlink_client *c, const struct varlink_request *q)
{
	_cleanup_json_ struct json_object *o = NULL;
	const char *text;
	size_t text_len;
	int r, result = 0;

	r = build_call(q, &o);
	if (r < 0)
		return r;
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &text_len);
	if (!text)
		return -ENOMEM;
	if (text_len > VARLINK_CALL_MAX)
		return -EMSGSIZE;
	r = send_call(c, q, text, text_len + 1);
	if (r < 0)
		return r;
	do {
		ssize_t len = receive(c, q);

		if (len < 0)
			return (int)len;
		r = take_reply(c, q, (size_t)len, &result);
	} while (r > 0 && !result);
	if (r > 0)
		c->broken = true;
	return r < 0 ? r : result;
}

int varlink_client_call(struct varlink_client *c, const struct varlink_request *request)
{
	int r;

	if (c->broken) {
		json_object_put(request->params);
		return -ECONNRESET;
	}
	r = exchange(c, request);
	if (r < 0)
		c->broken = true;
	return r;
}
