/* Following one device until it goes, or until this process is told to end. */
#pragma once

#include <signal.h>

#include "daemon/cli/cli.h"

enum follow_end {
	FOLLOW_DETACHED,	/* somebody asked for it */
	FOLLOW_LOST,		/* disconnected by another program, or given up */
	FOLLOW_SIGNAL,
};

/* Block the signals that end a program; they are in *RET. */
void follow_signals(sigset_t *ret);
/* Wait up to USEC for one of them; has one come? */
bool follow_told_to_end(const sigset_t *signals, uint64_t usec);

/* CHANGED (or NULL) gets the device as in Status, at once and after each change.  The daemon
 * may be restarted meanwhile: the device stays. */
enum follow_end follow_device(const struct cli *cli, const char *device,
			      const sigset_t *signals,
			      void (*changed)(struct json_object *device));
