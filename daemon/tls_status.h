/* How a device is encrypted, for those who ask. */
#pragma once

#include <json-c/json.h>

#include "daemon/device.h"

/* NULL: it is not, or not connected. */
struct json_object *tls_status(const struct device *d);
/* Add what a person should know to LIST. */
void tls_status_warnings(const struct device *d, struct json_object *list);
