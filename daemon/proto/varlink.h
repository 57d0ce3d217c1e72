/* The door of daemon/proto: Varlink, NUL-terminated JSON objects over a Unix stream
 * socket (https://varlink.org/Method-Call).  A server for sd-event that never blocks, and
 * a blocking client. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>

#include <json-c/json.h>

#include "lib/util/clock.h"
#include "lib/util/macro.h"

#define VARLINK_CLIENTS_MAX	256		/* connected at a time */
#define VARLINK_CLIENTS_ROOT	32		/* of these, kept for uid 0 */
#define VARLINK_CALL_MAX	(1u << 20)	/* bytes of one call, NUL not counted */
#define VARLINK_REPLY_MAX	(16u << 20)	/* bytes of one reply */
#define VARLINK_TOTAL_MAX	(48u << 20)	/* bytes buffered for all clients */
#define VARLINK_TOTAL_ROOT	(20u << 20)	/* of these, kept for uid 0 */
#define VARLINK_DEPTH_MAX	16		/* nested objects and arrays */
#define VARLINK_CONTAINERS_MAX	256		/* objects and arrays in one call */
#define VARLINK_MEMBERS_MAX	4096		/* commas and colons in one call */
#define VARLINK_HALF_USEC	(30 * USEC_PER_SEC)	/* to finish a call once begun */
#define VARLINK_UNREAD_USEC	(30 * USEC_PER_SEC)	/* a reply may lie unread */

#define VARLINK_INVALID_PARAMETER	"org.varlink.service.InvalidParameter"
#define VARLINK_EXPECTED_MORE		"org.varlink.service.ExpectedMore"
#define VARLINK_PERMISSION_DENIED	"org.varlink.service.PermissionDenied"

/* ---- server ------------------------------------------------------------------------ */

struct varlink_server;
struct varlink_call;

/* A method without its interface's name.  The handler owns CALL until it has ended it by
 * reply, error or drop, at once or at any later time; PARAMS (an object, never NULL)
 * lives as long as CALL. */
struct varlink_method {
	const char *name;
	bool root_only;		/* others get org.varlink.service.PermissionDenied */
	void (*handler)(struct varlink_call *call, struct json_object *params,
			void *userdata);
	bool own_user;		/* ... but who the server runs as may, too */
};

struct varlink_interface {
	const char *name;		/* io.nbdd.Manager */
	const char *description;	/* in Varlink's interface definition language */
	const struct varlink_method *methods;
	size_t n_methods;
};

/* Serve IFACE (which must outlive the server) on LISTEN_FD, a listening Unix stream
 * socket, which the server owns from then on.  0, -ENOMEM, or what sd-event says. */
_must_check_ int varlink_server_new(sd_event *event, int listen_fd,
				    const struct varlink_interface *iface, void *userdata,
				    struct varlink_server **ret);
/* Close every connection.  Calls not yet ended are told so by their gone function and
 * stay valid until they are ended.  NULL is fine. */
void varlink_server_free(struct varlink_server *s);
/* The socket that it listens on. */
int varlink_server_fd(const struct varlink_server *s);
/* Where one line about each client that was cut off goes; a few a minute at most. */
void varlink_server_set_log(struct varlink_server *s,
			    void (*log)(const char *text, void *userdata),
			    void *userdata);

/* Who closes sockets into which clients have put descriptors, for that may take for ever
 * (lib/util/rights.h).  Without one they are closed like any other. */
struct varlink_disposal {
	size_t max;			/* sockets, more than VARLINK_CLIENTS_MAX */
	size_t (*room)(void *userdata);	/* how many of these could be taken now */
	void (*take)(int fd, void *userdata);
	void *userdata;
};
void varlink_server_set_disposal(struct varlink_server *s,
				 const struct varlink_disposal *disposal);

/* End the call: with a result (PARAMS is taken; NULL is an empty one), or with an error
 * of a full name.  Nothing is sent when the client asked for `oneway` or has left.
 * 0, or -EMSGSIZE or -ENOMEM: then the client is cut off.  CALL is gone in any case. */
int varlink_call_reply(struct varlink_call *call, struct json_object *params);
int varlink_call_error(struct varlink_call *call, const char *error,
		       struct json_object *params);
/* The standard's InvalidParameter; TEXT, a sentence, goes along as `message`. */
int varlink_call_invalid(struct varlink_call *call, const char *parameter,
			 const char *text);
/* End a call without a word, as a gone function does; a client still there is closed. */
void varlink_call_drop(struct varlink_call *call);

/* An intermediate result (`continues`), only for a client that wants more; PARAMS is
 * taken.  A client that reads slowly gets the newest alone: what is not yet on its way is
 * replaced.  0, -EINVAL (more was not asked for), -EMSGSIZE, -ENOMEM. */
int varlink_call_notify(struct varlink_call *call, struct json_object *params);

/* Call FN from the event loop whenever all that was sent has been read; it may notify. */
void varlink_call_set_drained(struct varlink_call *call,
			      void (*fn)(struct varlink_call *call, void *userdata),
			      void *userdata);
/* The same soon, in its client's turn, if all has been read already. */
void varlink_call_wake(struct varlink_call *call);

bool varlink_call_wants_more(const struct varlink_call *call);
const struct ucred *varlink_call_peer(const struct varlink_call *call);
/* Call FN from the event loop, once, when the client leaves before the call has ended. */
void varlink_call_set_gone(struct varlink_call *call,
			   void (*fn)(struct varlink_call *call, void *userdata),
			   void *userdata);

/* A member of the call's parameters.  Absent or null: *RET stays as it was, unless
 * REQUIRED.  False: it is not of the type, or missing; the call has then been ended with
 * InvalidParameter. */
_must_check_ bool varlink_param_string(struct varlink_call *call,
				       struct json_object *params, const char *name,
				       bool required, const char **ret);
_must_check_ bool varlink_param_bool(struct varlink_call *call,
				     struct json_object *params, const char *name,
				     bool *ret);

/* ---- client, blocking -------------------------------------------------------------- */

struct varlink_client;

/* -ENOENT, -ECONNREFUSED: nobody listens there; -EACCES; -ENAMETOOLONG; … */
_must_check_ int varlink_client_connect(const char *path, struct varlink_client **ret);
void varlink_client_close(struct varlink_client *c);

struct varlink_request {
	const char *method;		/* with its interface's name */
	struct json_object *params;	/* taken; NULL: none */
	bool more;
	uint64_t timeout_usec;		/* longest wait for a reply, or USEC_INFINITY */
	/* For each reply: PARAMS is an object, ERROR NULL unless it is one.  Not 0 ends
	 * the call (and the connection) and is what varlink_client_call returns. */
	int (*reply)(struct json_object *params, const char *error, void *userdata);
	/* Every TICK_USEC while waiting, if not NULL; not 0 ends the call likewise. */
	uint64_t tick_usec;
	int (*tick)(void *userdata);
	void *userdata;
};

/* Make a call and wait for its last reply.  0; -ETIMEDOUT; -ECONNRESET (the other side
 * closed); -EINTR (a signal came, and is to end the program); -EPROTO; -EMSGSIZE. */
int varlink_client_call(struct varlink_client *c, const struct varlink_request *request);
