/* Any bytes as one message and as the input of a connection: the server answers or closes,
 * and goes on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/proto/message.h"
#include "daemon/proto/varlink.h"
#include "tests/fuzz/fuzz.h"

#define PROMISE(condition) do {						\
	if (!(condition)) {						\
		fprintf(stderr, "broken promise: %s\n", #condition);	\
		abort();						\
	}								\
} while (0)

static void echo(struct varlink_call *call, struct json_object *params, void *userdata)
{
	varlink_call_reply(call, json_object_get(params));
}

static void twice(struct varlink_call *call, struct json_object *params, void *userdata)
{
	const char *text = "";
	bool flag = false;

	if (!varlink_param_string(call, params, "text", true, &text) ||
	    !varlink_param_bool(call, params, "flag", &flag))
		return;
	varlink_call_notify(call, json_object_get(params));
	varlink_call_notify(call, NULL);
	if (flag)
		varlink_call_drop(call);
	else
		varlink_call_error(call, "org.example.Error", json_object_get(params));
}

static const struct varlink_method methods[] = {
	{ "Echo", false, echo }, { "Twice", true, twice },
};

static const struct varlink_interface iface = {
	"io.test", "interface io.test\n", methods, ARRAY_SIZE(methods),
};

/* A message that is taken is one whose parts are of their types; text becomes UTF-8. */
static void try_message(const uint8_t *data, size_t size)
{
	struct varlink_message m = VARLINK_MESSAGE_NULL;
	const char *why = NULL, *text = (const char *)data;
	struct json_object *o = NULL;
	char *copy = strndup(text, size);
	size_t len = strlen(copy);

	if (varlink_message_parse(copy, len, &m, &why) == 0)
		PROMISE(m.method && json_object_is_type(m.root, json_type_object));
	else
		PROMISE(why && *why);
	varlink_message_deinit(&m);
	varlink_make_utf8(copy, len);
	if (varlink_parse(copy, len, &varlink_reply_limits, &o, &why) < 0)
		PROMISE(strcmp(why, "the message is not UTF-8") != 0);
	json_object_put(o);
	free(copy);
}

static int listen_anywhere(struct sockaddr_un *a, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*len = sizeof(a->sun_family);		/* unix(7): autobind to an abstract name */
	PROMISE(bind(fd, (struct sockaddr *)a, *len) == 0);
	*len = sizeof(*a);
	PROMISE(getsockname(fd, (struct sockaddr *)a, len) == 0 && listen(fd, 1) == 0);
	return fd;
}

/* Send DATA, then read until the server closes. */
static void converse(sd_event *event, int fd, const uint8_t *data, size_t size)
{
	char reply[4096];
	ssize_t n = 1;

	while (size) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent > 0) {
			data += sent;
			size -= (size_t)sent;
		} else if (sd_event_run(event, 0) <= 0) {
			break;		/* it will not read any more */
		}
	}
	shutdown(fd, SHUT_WR);
	while (n) {
		while ((n = recv(fd, reply, sizeof(reply), MSG_DONTWAIT)) > 0)
			;
		if (n < 0 && sd_event_run(event, 1000 * 1000) == 0)
			PROMISE(!"the server closes when its client has ended");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct varlink_server *server;
	struct sockaddr_un address;
	sd_event *event;
	socklen_t len;
	int fd, listening = listen_anywhere(&address, &len);

	try_message(data, size);
	PROMISE(sd_event_new(&event) >= 0);
	PROMISE(varlink_server_new(event, listening, &iface, NULL, &server) == 0);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	PROMISE(connect(fd, (struct sockaddr *)&address, len) == 0);
	converse(event, fd, data, size);
	close(fd);
	varlink_server_free(server);
	sd_event_unref(event);
	return 0;
}
