/* What runs programs: its turns, and who gives it orders.  The same in the fork of nbdd and in
 * the service. */
#pragma once

#include "daemon/programs.h"
#include "daemon/service.h"

struct turn {
	pid_t pid;			/* 0: waits */
	uint64_t until_usec;
	bool late;			/* was killed for it */
	struct program_order order;
};

struct runner {
	const struct manager_options *files;	/* these say what is run; NULL: orders do */
	struct service service;		/* its listen is -1 in the fork, and when it is to end */
	int signals;
	uint64_t end_usec;		/* what runs then is ended; infinity while it serves */
	uint64_t idle_usec;		/* the service ends then, unless somebody is there */
	size_t n_clients;
	int clients[PROGRAM_CLIENTS_MAX];
	size_t n;
	struct turn turns[PROGRAMS_WAITING];	/* in the order in which they came */
};

/* Run what is asked for, until nobody asks any more. */
void program_run(struct runner *r);
/* What is said of it. */
const char *program_path(const struct program_order *o);

/* program_execute.c: in a fork, find out what to run, and do. */
_noreturn_ void program_execute(const struct runner *r, struct program_order *o);

/* program_service.c: */
void program_accept(struct runner *r);
/* What a client says is as it should be: its texts end, and are such. */
bool program_check(struct news *n);
/* In that fork, set path and user of O as the configuration has them; or end. */
void program_look_up(const struct manager_options *files, struct program_order *o);
