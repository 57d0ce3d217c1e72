/* Which server the connections of a device lead to: all of them to the same one. */
#pragma once

#include "daemon/device.h"

/* Has a connection to the server in use been made, or is one being made? */
bool one_server_in_use(const struct device *d);
/* The server of T that L is to dial, of which at most one address may be left; its addresses
 * are T's. */
void one_server_choose(const struct link *l, struct target *t, struct server *ret);
/* After a failure: is there another to be tried at once?  Not while one is in use, nor when all
 * have been tried. */
bool one_server_next(struct device *d);
/* The name service has answered: the servers of FRESH, which is the callee's, take the place of
 * those known, unless the one in use is none of them. */
void one_server_renew(struct device *d, struct target *fresh);
