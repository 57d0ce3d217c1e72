#pragma once

#include <json-c/json.h>

/* To the parameters of the error DeviceHeld, an array `holders` of objects with `kind` (mount,
 * swap, device, process), `device` (the disk or the partition held), `text` (the mount point,
 * the device, the command name) and `pid` (0: none). */
void holders_find(struct json_object *params);
size_t holders_count(struct json_object *params);	/* 0: nobody is to be seen */
