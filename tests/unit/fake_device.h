/* A device without a kernel: its calls, its children and its connectors end when the test says
 * so, and as it says.  For orders of events that a real kernel cannot be made to play. */
#pragma once

#include "daemon/connector.h"
#include "daemon/errand.h"
#include "daemon/event.h"
#include "daemon/kcall.h"

#define ERRANDS_MAX	16
#define MIB		((uint64_t)1 << 20)

struct fake_errand {
	struct device *device;
	struct errand **slot;		/* NULL: it has ended */
	errand_done_fn done;
};

/* How many connectors were started, and the latest of them. */
struct fake_dial {
	unsigned n;
	struct tls_plan tls;
	connector_done_fn done;
	void *userdata;
};
extern struct fake_dial dialled;

/* All that were begun so far; and how often the queue was to be set up. */
extern struct fake_errand errands[ERRANDS_MAX];
extern size_t n_jobs, n_errands, n_settings;

/* How many the kernel says were completed, and are in flight. */
extern uint64_t n_writes;
extern unsigned n_in_flight;

/* What the Ith call asks of the kernel; of those without these, the kind. */
struct fake_call {
	enum kernel_call_kind kind;
	uint64_t dead_timeout_sec, timeout_sec, size;
};
struct fake_call asked(size_t i);
/* What the Ith call ends with, or -errno that it does not even ask. */
int ask(size_t i);

struct manager *manager(void);
/* Attached, its links dead. */
struct device *attached(struct manager *m, size_t n_links);
struct device *connected(struct manager *m, size_t n_links);
/* L in STATE, with an export of SIZE bytes behind it; the server's end of its socket. */
int make_link(struct device *d, struct link *l, enum link_state state, uint64_t size);

/* Link I dies, if it lives, and a new connection is told of SIZE. */
void replace(struct device *d, size_t i, uint64_t size);

/* The loop, for 100 ms at most. */
void run(struct manager *m);
/* The Ith call of the kernel, or child, ends. */
void end_job(size_t i, int result);
void end_errand(size_t i, int error);
void end_errand_with(size_t i, struct errand_result result);
/* Has the other end of FD been shut down, not merely closed here? */
bool cut(int fd);
