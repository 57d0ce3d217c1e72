/* What there is to say of a device, as the interface's type Device. */
#pragma once

#include <json-c/json.h>

#include "daemon/device.h"
#include "daemon/manager.h"

#define WATCHERS_MAX 256

#define STATUS_URI_MAX (CONF_VALUE_MAX + TARGET_HOST_MAX + 64)
/* The device's URI, or one made of its addresses, in BUF or in K. */
const char *status_uri(const struct device_keys *k, char buf[static STATUS_URI_MAX]);

struct json_object *status_device(const struct device *d);
/* `devices` of a Status reply: one device, or all if NULL. */
struct json_object *status_reply(struct manager *m, const struct device *d);

/* The same of one that has gone; LOST: nobody has asked for that. */
struct json_object *status_gone(bool lost);

/* A call of Status that wants more: told of every change, at most ten times a second, and of
 * the last one in any case.
 * NAME: of one device, or NULL.  0, -EBUSY (WATCHERS_MAX), -ENOMEM. */
struct varlink_call;
int status_watch(struct manager *m, struct varlink_call *call, const char *name);
/* A change: tell the watchers and systemd, soon. */
void status_changed(struct manager *m);
/* systemd may go on with what comes after us; it learns it later when it is busy now. */
void status_ready(struct manager *m);
/* Those who watch D are to know that nobody has detached it. */
void status_lost(const struct device *d);
/* Those who watch the device of the name BEFORE go on with NAME. */
void status_renamed(struct manager *m, const char *before, const char *name);
