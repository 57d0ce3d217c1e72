/* nbd-client: the front-end's files share this.  A command line becomes a `struct front`,
 * and each action is a file. */
#pragma once

#include "daemon/cli/cli.h"

#define FRONT_VERSION	"3.26"		/* of nbd-client, whose behaviour this is */

enum front_action {
	FRONT_CONNECT, FRONT_LIST, FRONT_CHECK, FRONT_DISCONNECT, FRONT_HELP, FRONT_VERSION_,
	N_FRONT_ACTIONS,
};

struct front {
	struct cli cli;
	enum front_action action;
	const char *operands[4];	/* HOST-or-PATH, [PORT,] [DEVICE] */
	size_t n_operands;
	const char *host, *port, *device;
	const char **devices;		/* of -c (the first counts) and -d */
	size_t n_devices;
	struct json_object *keys;	/* of Attach */
	const char *files[3];		/* enum front_file */
	bool persist, unix_socket, tls;
	bool foreground, systemd_mark;
};

enum front_file { FRONT_CA, FRONT_CERTIFICATE, FRONT_KEY };

/* front_options.c: a command line.  0, or nbd-client's exit status, with the reason told. */
int front_parse(struct front *f, int argc, char **argv);
/* Set the key NAME of the device. */
void front_set_key(struct front *f, const char *name, const char *value);

/* front_connect.c: the keys of TLS, from its options.  0 or a status. */
int front_take_tls(struct front *f);

/* The actions.  Each returns nbd-client's exit status. */
int front_connect(struct front *f);
int front_list(struct front *f);
int front_check(struct front *f);
int front_disconnect(struct front *f);
void front_usage(FILE *out);

/* One sentence on stderr; returns 1, the status of every failure but that of -c. */
_printf_(2, 3) int front_error(const struct front *f, const char *format, ...);

/* front_wait.c: stay until DEVICE is detached, or detach it when told to end. */
int front_wait(const struct front *f, const char *device);
