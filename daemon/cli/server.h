/* A server that is asked directly; private to daemon/cli. */
#pragma once

#include <libnbd.h>

#include "daemon/cli/cli.h"

struct server {
	const struct cli *cli;
	const char *uri;
	struct json_object *keys;	/* of TLS, or NULL */
	struct nbd_handle *h;
	bool answered;			/* the option under way has its reply */
	int error;			/* 0, or the errno of that reply */
};

/* Connect until options can be negotiated, or, with a server too old for that, until it
 * is ready.  A CLI_ status; errors have been reported. */
int server_connect(struct server *s);
/* Leave politely. */
void server_close(struct server *s);

/* `server_wait(s, nbd_aio_opt_...(s->h, ..., server_answer(s)))`: the reply is then in
 * s->error.  A CLI_ status, not CLI_OK when the connection failed. */
nbd_completion_callback server_answer(struct server *s);
int server_wait(struct server *s, int begun);

/* Report why the option that was sent last was refused. */
int server_refused(const struct server *s);
/* Report WHAT, or the library's error when it is NULL; returns STATUS. */
int server_error(const struct server *s, enum cli_status status, const char *what);
