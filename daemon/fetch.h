/* The files of the configuration, which may be on a device whose server hangs, or that is away:
 * while there is a device, a child reads them, and nbdd opens none. */
#pragma once

#include "conf/conf.h"

struct manager;

/* R: 0, and FRESH is the callee's; or -errno, and there is none.  -ETIMEDOUT: who reads them
 * hangs; -ECANCELED: the manager is going away. */
typedef void (*conf_fetched_fn)(struct manager *m, int r, struct conf *fresh, void *userdata);

/* DONE is called once, now or later, with what is in the files after this call. */
void conf_fetch(struct manager *m, conf_fetched_fn done, void *userdata);
/* Why there is none, for people. */
const char *conf_fetch_strerror(int r);
void conf_fetch_free(struct manager *m);
