/* What the server's files share; private to daemon/proto. */
#pragma once

#include <sys/queue.h>

#include "daemon/proto/message.h"
#include "daemon/proto/varlink.h"
#include "lib/util/buffer.h"

#define VARLINK_BACKLOG		64
#define VARLINK_LOGS_PER_MINUTE	10
/* In the loop: of root's clients and of new ones, which take turns with all else that there is
 * to do, for a machine may be busy for long; and of all others. */
#define VARLINK_PRIORITY_ROOT	SD_EVENT_PRIORITY_NORMAL
#define VARLINK_PRIORITY	SD_EVENT_PRIORITY_IDLE

struct varlink_connection {
	LIST_ENTRY(varlink_connection) link;
	struct varlink_server *server;
	int fd;
	struct ucred peer;
	sd_event_source *io, *defer, *timer;
	struct buffer in, out;
	size_t in_start;		/* bytes of IN already handled */
	size_t in_scanned;		/* bytes of IN known to hold no NUL */
	size_t out_start;		/* bytes of OUT already sent */
	size_t counted;			/* bytes of IN and OUT in the server's total */
	struct buffer newest;		/* a notification that waits for OUT to drain */
	struct varlink_call *call;	/* being answered, or NULL */
	bool hung_up;			/* nobody is there to read replies */
	bool at_end;			/* nothing more will come in */
	bool closing;			/* close once OUT is sent */
};

struct varlink_server {
	sd_event *event;
	int listen_fd;
	sd_event_source *listen_io, *listen_timer;
	const struct varlink_interface *iface;
	void *userdata;
	LIST_HEAD(, varlink_connection) connections;
	size_t n_connections;
	size_t total;			/* bytes buffered */
	void (*log)(const char *text, void *userdata);
	void *log_userdata;
	struct varlink_disposal disposal;
	uint64_t log_minute;		/* the minute that is counted */
	unsigned log_lines, log_dropped;
};

struct varlink_call {
	struct varlink_connection *connection;	/* NULL: freed under the call */
	struct varlink_server *server;
	struct varlink_message message;
	struct json_object *params;
	struct ucred peer;
	void (*gone)(struct varlink_call *call, void *userdata);
	void *gone_userdata;
	void (*drained)(struct varlink_call *call, void *userdata);
	void *drained_userdata;
};

/* server.c */
_printf_(2, 3) void varlink_server_log(struct varlink_server *s, const char *format, ...);
/* Close FD, a client's. */
void varlink_server_close(struct varlink_server *s, int fd);
/* May the buffers of a client of UID grow to make the total TOTAL? */
bool varlink_server_allows(const struct varlink_server *s, uid_t uid, size_t total);

/* connection.c */
int varlink_connection_new(struct varlink_server *s, int fd, const struct ucred *peer);
void varlink_connection_free(struct varlink_connection *c);
/* Queue an object (taken) as a message; 0, -EMSGSIZE, -ENOMEM.  NEWEST: as one that a
 * later one replaces while it waits. */
int varlink_connection_send(struct varlink_connection *c, struct json_object *o,
			    bool newest);
/* Answer what is no Varlink call, and cut the connection. */
void varlink_connection_reject(struct varlink_connection *c, const char *why);
/* Go on with the connection from the event loop. */
void varlink_connection_wake(struct varlink_connection *c);
/* Have it closed as soon as what is queued is sent; why goes to the log. */
_printf_(2, 3) void varlink_connection_cut(struct varlink_connection *c,
					   const char *format, ...);

/* call.c */
/* An error reply (PARAMS is taken); the parameters of InvalidParameter.  NULL: no
 * memory. */
struct json_object *varlink_error_object(const char *error, struct json_object *params);
struct json_object *varlink_invalid_object(const char *parameter, const char *text);
/* Begin the call that LEN bytes of TEXT ask for. */
void varlink_call_begin(struct varlink_connection *c, const char *text, size_t len);
/* Tell the connection's call that its client has read all; true: there is more to send. */
bool varlink_call_drained(struct varlink_connection *c);
/* Tell the connection's call, if there is one, that nobody waits for it any more. */
void varlink_call_gone(struct varlink_connection *c);
