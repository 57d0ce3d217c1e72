/* A device's number, name and identifier. */
#pragma once

#include "daemon/device.h"

/* nbdN: what a device is called that was given no name. */
#define DEVICE_NODE_MAX 16
void device_node_name(int index, char name[static DEVICE_NODE_MAX]);
/* Name it, and make the identifier that the kernel is to have of it. */
void device_give_name(struct device *d, const char *name);
/* May another number do, and has the kernel not been asked for this one yet? */
bool device_index_is_guess(const struct device *d);
/* Give another number to one that is not attached, and the name that goes with it. */
void device_renumber(struct device *d, int index);
