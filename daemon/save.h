/* What is written about a device for the nbdd that comes after this one.
 *
 * After each event that changes something, and before each call into the kernel, so that a
 * kill at any instant leaves either what was before or what is on its way. */
#pragma once

#include "daemon/device.h"
#include "daemon/state.h"

/* Bring the file up to date, if it is not.  Never fails: what cannot be written now is a
 * warning of the device, and tried again. */
void save_device(struct device *d);
/* Before the kernel is given connections with the server that D goes to now: a crash is not to
 * take it back to another, which lacks what was written since.  What names another is written
 * anew, or removed, so that the next nbdd leaves the device alone.  0; -errno: neither was
 * possible, and nothing may be given. */
_must_check_ int save_server(struct device *d);
/* Look again in a second at every device: something could not be written or sent. */
void save_later(struct manager *m);
/* The device has gone: so does its file. */
void save_forget(struct device *d);
/* Let go of the file, and leave it there. */
void save_close(struct device *d);

/* D as a state that borrows from it: not to be deinited.  False: there is nothing to tell. */
bool save_describe(const struct device *d, struct state *ret);
