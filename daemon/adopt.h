/* Devices that an earlier nbdd has attached: found again, and supervised from now on. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/state.h"

#define ADOPT_FDS_MAX (MANAGER_DEVICES_MAX * 4)

struct manager;

/* Descriptors that came from somewhere, to be found by their inodes; what is taken is
 * replaced by -1. */
struct adopt_fds {
	int *fds;
	size_t n;
};

/* Close what nobody has taken. */
void adopt_fds_close(struct adopt_fds *fds);

/* Take over every device that a state file describes and that the kernel still has under
 * the same identifier.  What cannot be proved to be ours is left alone, and reported. */
void adopt_devices(struct manager *m, struct adopt_fds *fds);
/* Take over the device that S (which is emptied) describes.  0; -ENOENT: there is nothing
 * to take over, and nothing to report; -errno with a sentence in ERROR. */
int adopt_device(struct manager *m, struct state *s, struct adopt_fds *fds,
		 char error[static STATE_ERROR_MAX]);
