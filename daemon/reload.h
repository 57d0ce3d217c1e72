/* The files are read anew, and the devices follow them: `nbdctl reload`, SIGHUP. */
#pragma once

#include "daemon/manager.h"

struct json_object;
struct varlink_call;

/* CALL is answered when everything has been done, or tells why nothing was; NULL: only the
 * log. */
void reload_begin(struct manager *m, struct varlink_call *call);
/* The manager is going away. */
void reload_free(struct reload *r);

void control_method_reload(struct varlink_call *call, struct json_object *params,
			   void *userdata);
