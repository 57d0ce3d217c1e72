/* The methods of io.nbdd.Manager, and the calls that wait for a device. */
#pragma once

#include "daemon/device.h"
#include "daemon/proto/manager.h"

#define CONTROL_ERROR_INVALID_KEY	MANAGER_ERROR("InvalidKey")
#define CONTROL_ERROR_NO_SUCH_DEVICE	MANAGER_ERROR("NoSuchDevice")
#define CONTROL_ERROR_BUSY		MANAGER_ERROR("Busy")
#define CONTROL_ERROR_CONNECT_FAILED	MANAGER_ERROR("ConnectFailed")
#define CONTROL_ERROR_DEVICE_HELD	MANAGER_ERROR("DeviceHeld")
#define CONTROL_ERROR_FAILED		MANAGER_ERROR("Failed")

/* Listen on RUNTIME_DIR/control, or on the socket that systemd passed.  0 or -errno, and
 * what went wrong has been logged. */
int control_open(struct manager *m);

/* Answer every Attach that waits for the device. */
void control_attach_done(struct device *d);
void control_attach_failed(struct device *d, const char *error);
/* Answer every Detach; R is 0 or -errno. */
void control_detach_done(struct device *d, int r);
