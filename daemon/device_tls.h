/* TLS of a supervised device. */
#pragma once

#include "daemon/device.h"
#include "daemon/tls_plan.h"

/* Before a connector is started: what it does about TLS.  0, -EAGAIN (keys are being read: an
 * EV_START or EV_FAILED follows), or another -errno. */
_must_check_ int device_tls_ready(struct device *d, struct tls_plan *ret);
/* Other SECRETS (or NULL), which become the device's: those of before, the caller's. */
struct tls_secrets *device_tls_exchange(struct device *d, struct tls_secrets *secrets);
/* Have the keys read now, so that they are known when the disk that they lie on is away. */
void device_tls_refresh(struct device *d);
