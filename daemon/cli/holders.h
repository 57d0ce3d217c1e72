#pragma once

#include <stdbool.h>

#include <json-c/json.h>

/* To the parameters of the error DeviceHeld, an array `holders` of objects with `kind` (mount,
 * swap, device, process), `device` (the disk or the partition held), `text` (the mount point,
 * the device, the command name) and `pid` (0: none). */
void holders_find(struct json_object *params);
size_t holders_count(struct json_object *params);	/* 0: nobody is to be seen */
bool holders_only_processes(struct json_object *params);	/* and at least one */
/* To stderr, a line each, and what to do about them; so many. */
size_t holders_print(struct json_object *params);
