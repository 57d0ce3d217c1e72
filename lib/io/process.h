/* A server as a subprocess. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "lib/util/macro.h"

struct process {
	pid_t pid;		/* 0: none */
	bool activated;		/* by socket activation: it must be told to stop */
	char *socket_path;	/* of socket activation; NULL for a command */
};

#define PROCESS_NULL ((struct process){})

/* Run ARGV (argv[0] is searched in PATH) with its standard input and output connected to
 * the socket *RET_FD.  When it cannot be executed the child says why on standard error and
 * exits, so that the other end of the socket sees end of file.  0 or -errno. */
_must_check_ int process_start(struct process *p, char *const argv[], int *ret_fd);

/* Run ARGV with a listening Unix socket as descriptor 3, as systemd's socket activation
 * does (sd_listen_fds(3)); the path is p->socket_path.  NAME, unless empty, goes into
 * LISTEN_FDNAMES.  0 or -errno. */
_must_check_ int process_activate(struct process *p, char *const argv[], const char *name);

/* Stop (socket activation: SIGTERM), wait for the process, remove its socket. */
void process_stop(struct process *p);
