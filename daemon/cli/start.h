/* A daemon for those who find none: found, or started. */
#pragma once

#include "daemon/cli/cli.h"
#include "lib/util/clock.h"

struct start_spec {
	const char *config;		/* nbdd's --config, without an nbdtab; NULL: its own */
	/* Its name begins with `@`: systemd then spares it when it kills at the end of the
	 * initramfs and of the system. */
	bool mark;
};

/* Does a daemon serve the control socket?  0 or -errno. */
int cli_find_daemon(const struct cli *cli);
#define CLI_AGAIN_USEC	(5 * USEC_PER_SEC)	/* for one that is being restarted */
/* The same, waiting until DEADLINE_USEC (monotonic) for one to come. */
int cli_await_daemon(const struct cli *cli, uint64_t deadline_usec);
/* Start one when none does, and wait until it is ready.  A CLI_ status; errors have been
 * reported. */
int cli_start_daemon(const struct cli *cli, const struct start_spec *spec);
/* Is this an initramfs? */
bool cli_in_initramfs(void);
