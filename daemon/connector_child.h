/* The process of a connector: what it is to do, and what it answers. */
#pragma once

#include "daemon/connector.h"

#define CONNECTOR_TASKS_MAX 32		/* of one process */

/* A connection to make. */
struct connector_task {
	const struct server *server;	/* the same for all tasks of a job */
	const struct target *target;	/* its export there */
	struct tls_plan tls;
	const struct samples *samples;	/* or NULL */
};

/* More than one only when they are with the same server, over TCP, without TLS or samples. */
struct connector_job {
	struct connector_task tasks[CONNECTOR_TASKS_MAX];
	size_t n;
};

/* One for each task, in any order; the socket comes with it. */
struct connect_answer {
	int32_t error;			/* 0 or errno */
	uint32_t failure;		/* enum connect_failure */
	uint32_t place;			/* of the task */
	char message[CONNECTOR_MESSAGE_MAX];
	struct export_info info;
	struct link_tls tls;
	struct digests digests;
	struct nbdd_tls_state state;
};
_Static_assert(sizeof(struct connect_answer) <= CHILD_MESSAGE_MAX, "must fit one message");

/* See struct child_spec; ARG is a struct child_given, whose job connector_job_write made, and
 * which has the connected socket of a server's path. */
int connector_prepare(void *arg);
void connector_main(int sock, int kept, void *arg);
/* Before it, for a server's path, in a child that is root; ARG is a struct server.  Answers 0 with
 * the connected socket, or an errno: an int32_t. */
void connector_reach(int sock, int kept, void *arg);
/* The answer of a task whose server S could not be reached: ERROR is an errno. */
void connector_not_reached(struct connect_answer *a, const struct server *s, int error);

/* connector_job.c: a job to be passed, and in the child the same again, which points into
 * FROM.  0, -EPROTO, or another -errno. */
_must_check_ int connector_job_write(const struct connector_job *job, struct job *ret);
_must_check_ int connector_job_read(const struct job *from, struct connector_job **ret);
