/* The methods of io.nbdd.Manager, and the calls that wait for a device. */
#pragma once

#include "daemon/device.h"
#include "daemon/proto/manager.h"

#define CONTROL_ERROR_INVALID_KEY	MANAGER_ERROR("InvalidKey")
#define CONTROL_ERROR_NO_SUCH_DEVICE	MANAGER_ERROR("NoSuchDevice")
#define CONTROL_ERROR_BUSY		MANAGER_ERROR("Busy")
#define CONTROL_ERROR_CONNECT_FAILED	MANAGER_ERROR("ConnectFailed")
#define CONTROL_ERROR_NOT_THE_SAME	MANAGER_ERROR("NotTheSame")
#define CONTROL_ERROR_DEVICE_HELD	MANAGER_ERROR("DeviceHeld")
#define CONTROL_ERROR_FAILED		MANAGER_ERROR("Failed")

/* Listen on FD, which came from elsewhere, or for -1 on RUNTIME_DIR/control.  0 or -errno,
 * and what went wrong has been logged. */
int control_open(struct manager *m, int fd);

/* Answer every Attach that waits for the device. */
void control_attach_done(struct device *d);
void control_attach_failed(struct device *d, const char *error);
/* Answer every Detach; R is 0 or -errno. */
void control_detach_done(struct device *d, int r);
/* Somebody has it, CLAIMED: for himself alone; or that cannot be found out, for R. */
void control_detach_held(struct device *d, bool claimed);
void control_detach_unknown(struct device *d, int r);

/* ---- for the methods --------------------------------------------------------------- */

struct json_object;

/* ERROR with one parameter: MEMBER is TEXT. */
void control_reply_error(struct varlink_call *call, const char *error, const char *member,
			 const char *text);
void control_reply_no_device(struct varlink_call *call, const char *name);
void control_reply_attached(struct varlink_call *call, const struct device *d);

/* Let CALL wait; false when there is no place, and it was answered so. */
bool control_add_waiter(struct varlink_call **waiters, struct varlink_call *call);
/* Its client has left. */
void control_drop_waiter(struct varlink_call **waiters, struct varlink_call *call);

/* The parameter `device`, required; NULL: the call has been answered. */
struct device *control_param_device(struct varlink_call *call, struct json_object *params,
				    struct manager *m);
/* The parameter `keys` over what is in K; false: the call has been answered. */
bool control_param_keys(struct varlink_call *call, struct json_object *params,
			struct device_keys *k);

void control_method_move(struct varlink_call *call, struct json_object *params,
			 void *userdata);
void control_method_attach(struct varlink_call *call, struct json_object *params,
			   void *userdata);
