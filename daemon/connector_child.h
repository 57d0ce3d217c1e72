/* The process of a connector: what it is to do, and what it answers. */
#pragma once

#include "daemon/connector.h"

#define CONNECTOR_TASKS_MAX 32		/* of one process */

/* A connection to make. */
struct connector_task {
	const struct target *target;	/* to its current server */
	struct tls_plan tls;
	const struct samples *samples;	/* or NULL */
};

/* More than one only when they are with the same server, over TCP, without TLS or samples. */
struct connector_job {
	const struct sandbox *sandbox;
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

/* See struct child_spec; ARG is the job. */
int connector_prepare(void *arg);
void connector_main(int sock, int kept, void *arg);
