/* The loads that the clients of tests/bench put on a server: what a mode is, when it is
 * over, and whether what was read is right. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/bench/meter.h"

#define PLACES		(1u << 30)	/* operations walk through the first GiB */

/* How a client goes about it; not every client knows every way. */
enum way { SYNC, POLL, PEEK, LOOP, CONNECT, CREATE, MEMORY, N_WAYS };

enum kind { READ, WRITE, MIX, TRIM, FLUSH };

/* SIZE bytes an operation, DEPTH operations in flight on each of CONNECTIONS. */
struct mode {
	const char *name;
	enum way way;
	enum kind kind;
	unsigned size, depth, connections;
};

struct options {
	const char *uri;
	double seconds;
	uint64_t operations;	/* 0: as many as SECONDS hold */
	bool simple, verify;
};

typedef void (*load_runner)(const struct options *, const struct mode *);

/* main() of a client: run the mode that the command line names by its way's RUNNERS[way],
 * which is NULL where the client has none.
 *
 *	[-s SECONDS] [-n OPERATIONS] [-S] [-V] MODE URI
 *	-l			list the modes
 *
 *	-S  no structured replies	-V  verify what is read (against nullserver) */
int load_main(int argc, char **argv, const load_runner runners[N_WAYS]);

/* Is it enough?  The clock is looked at once in 32 questions. */
bool load_enough(const struct options *o, const struct meter *start, uint64_t ops);

/* End the program unless the SIZE bytes at P are nullserver's pattern at OFFSET. */
void load_verify(const uint8_t *p, uint64_t offset, unsigned size);

/* The memory of all operations of one connection, touched: DEPTH times SIZE bytes. */
uint8_t *load_buffers(const struct mode *m);

/* Is the Nth operation of M a read? */
static inline bool load_reads(const struct mode *m, uint64_t n)
{
	return m->kind == READ || (m->kind == MIX && n % 2);
}
