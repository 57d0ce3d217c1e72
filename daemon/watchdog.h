/* The service manager's watchdog (sd_notify(3)): fed as long as the event loop turns.
 *
 * sd_event_set_watchdog(3) waits when the manager does not read what it is told. */
#pragma once

struct manager;

/* Feed it from now on, if there is one for this process; again after the environment was
 * changed.  What goes wrong is logged. */
void watchdog_start(struct manager *m);
