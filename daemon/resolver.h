/* From a device's keys to its target: URI parsing and name service, in a child. */
#pragma once

#include "daemon/child.h"
#include "daemon/target.h"

#define RESOLVER_MESSAGE_MAX 512

/* ERROR 0: TARGET is the callee's to keep or to deinit.  Else -errno and why, escaped. */
typedef void (*resolver_done_fn)(int error, const char *message, struct target *target,
				 void *userdata);

struct resolver;

#define RESOLVERS_MAX 32	/* processes at a time, those that hang included */

/* KEYS must live until done or cancelled.  *ALIVE counts the processes: -EAGAIN when there
 * are RESOLVERS_MAX, for one that hangs on a lost disk cannot even be killed. */
int resolver_start(sd_event *event, const char *name, const struct device_keys *keys,
		   struct spawner *spawner, unsigned *alive, resolver_done_fn done,
		   void *userdata, struct resolver **ret);
struct resolver *resolver_cancel(struct resolver *r);
