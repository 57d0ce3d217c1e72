/* What root has named as the program of a device (on-event), kept where root alone can write:
 * RUNTIME_DIR-root/on-event.NAME.
 *
 * The states may be those of an nbdd that is not root, and that somebody has taken over; the
 * owner of their files is no proof, for it may write into root's (CAP_DAC_OVERRIDE), and when
 * the service becomes root's, systemd makes all of them root's.  So an nbdd that is root runs
 * of what it takes over only what is written here, or in nbdd.conf and nbdtab. */
#pragma once

#include <stdbool.h>

#include "daemon/device.h"
#include "daemon/state.h"

/* D's program was named by root: see to it that this is written, or that nothing is when it has
 * none.  Never fails: what cannot be written is logged. */
void warrant_keep(struct device *d);
/* D has gone. */
void warrant_forget(struct device *d);
/* Has root named the program that S has, if it has one?  Always true of an nbdd that is not
 * root: it runs none. */
bool warrant_covers(const struct manager *m, const struct state *s);
