/* nbd-client -nofork: stay as long as the device is attached. */
#include "daemon/cli/follow.h"
#include "daemon/cli/front.h"

int front_wait(const struct front *f, const char *device)
{
	struct front end = { .cli = f->cli, .devices = &device, .n_devices = 1 };
	sigset_t signals;

	follow_signals(&signals);
	switch (follow_device(&f->cli, device, &signals, NULL)) {
	case FOLLOW_DETACHED:
		return 0;
	case FOLLOW_LOST:
		return 1;
	case FOLLOW_SIGNAL:
		break;
	}
	return front_disconnect(&end);
}
