/* The registry of devices and what they share: event loop, kernel worker, connectors. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "conf/conf.h"
#include "daemon/kworker.h"
#include "daemon/owner.h"
#include "daemon/sandbox.h"
#include "daemon/state.h"
#include "netlink/nbdk.h"

#define MANAGER_DEVICES_MAX	1024
#define MANAGER_DETACHED_MAX	64	/* remembered */

struct device;
struct watchers;
struct followers;
struct programs;
struct spawner;
struct varlink_server;
struct store;
struct notify;
struct inherited;
struct reports;
struct child;
struct connectors;
struct disposal;

struct manager_options {
	const char *config, *nbdtab, *runtime_dir;
	struct owners owners;		/* of what a predecessor leaves */
	bool replace;			/* take over from an nbdd that runs */
	struct programs *programs;	/* what runs them; NULL: nothing */
	struct spawner *spawner;	/* of connectors, relays, resolvers */
};

struct manager {
	struct manager_options options;
	sd_event *event;
	struct kworker *worker;
	struct nbdk_events *links;
	struct nbdk_net *net;
	struct sandbox *sandbox;	/* of our own children */
	int relay_marks;		/* see relay.h */
	struct nbdk_diag *diag;		/* for links whose descriptors are lost */
	struct notify *notify;		/* NULL: nobody wants to know */
	struct store *store;		/* NULL: cannot be opened now */
	char boot_id[STATE_BOOT_ID_MAX];
	struct varlink_server *server;
	struct disposal *disposal;	/* of its clients' sockets */
	struct conf *conf;		/* as last read */

	struct device *devices[MANAGER_DEVICES_MAX];
	size_t n_devices;
	int detached[MANAGER_DETACHED_MAX];	/* indexes + 1; a ring */
	size_t next_detached;
	struct connectors *connectors;
	size_t turn;			/* of devices[], whose turn it is to get one */
	unsigned n_resolvers;		/* processes */
	unsigned n_tls_readers;		/* the same */
	sd_event_source *kick;
	sd_event_source *save_timer;	/* to write again what could not be written */
	sd_event_source *status_timer;	/* gathers changes for those who watch */
	struct watchers *watchers;
	struct followers *followers;	/* of news; NULL: nobody has been one */
	struct reports *reports;	/* what was found at the start and left alone, … */
	bool reports_left_out;		/* … not all of it */
	struct fetch *fetch;		/* reads the files; NULL: nobody has asked yet */
	struct reload *reload;		/* under way */
	bool load_due, loading;		/* the files; one asks for them */
	bool reloading;			/* another does */
	bool load_failed;		/* out of memory, or the like: … */
	sd_event_source *load_timer;	/* … then it is tried again */
	sd_event_source *clock;		/* resume.h */
	uint64_t suspended_usec;	/* since the start of the machine, as last seen */
	bool ready_due, genl_due;	/* systemd's socket was full */
	sd_event_source *watchdog;
	uint64_t watchdog_usec;		/* within which systemd wants to hear of us */
	bool leaving;			/* devices stay, for the next nbdd */
};

/* What needs nothing of a predecessor; it reads files, and may load modules of the kernel.  0
 * or -errno; what went wrong has been logged. */
int manager_new(const struct manager_options *options, sd_event *event, struct manager **ret);
/* The rest.  Takes of INHERITED what it uses. */
int manager_open(struct manager *m, struct inherited *inherited);
void manager_free(struct manager *m);
/* Begin with the automatic devices of the files; later, when these cannot be read now, for
 * whatever reason. */
void manager_load(struct manager *m);
void manager_load_due(struct manager *m);
/* One of the files, unless it was taken over. */
void manager_load_device(struct manager *m, const struct conf_device *c);

/* By a name alone; or by that or nbdN or /dev/nbdN, for those who may mean either. */
struct device *manager_find_named(struct manager *m, const char *name);
struct device *manager_find(struct manager *m, const char *name_or_device);
/* Who has the number in the kernel, or else who will ask for it. */
struct device *manager_find_index(struct manager *m, unsigned index);
/* 0, or -ENOSPC.  A device whose number is the same, and was a guess, gets another one. */
int manager_add(struct manager *m, struct device *d);
void manager_remove(struct manager *m, struct device *d);
/* Was this device, which is not attached now, detached because somebody asked for it? */
bool manager_was_detached(const struct manager *m, const char *device);
/* What the files say from now on. */
void manager_set_conf(struct manager *m, struct conf *fresh);
/* The lowest index above AFTER (-1) that neither the kernel, nor the registry, nor a device
 * of the files uses. */
int manager_free_index(struct manager *m, int after);

/* A connector slot is free again: start whoever waits. */
void manager_kick(struct manager *m);
/* Is any device attached and without its server? */
bool manager_any_out(const struct manager *m);
/* How many devices wait for a retry with the server of D, for the pace of retries. */
unsigned manager_waiting(const struct manager *m, const struct device *d);
/* HOST answers again: those that wait for the same need not wait longer. */
void manager_server_back(struct manager *m, const char *host);
/* Retry at once every device that is out: its server may be reachable again. */
void manager_hurry(struct manager *m, const char *why);
