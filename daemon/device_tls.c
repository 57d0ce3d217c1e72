#include "daemon/device_tls.h"

#include <errno.h>
#include <string.h>

#include "daemon/event.h"
#include "daemon/log.h"

static void on_secrets(const char *error, bool late, void *userdata)
{
	struct device *d = userdata;

	if (!error)
		device_event(d, EV_START, NULL);
	else
		device_event(d, EV_FAILED, &(struct event_detail){
			.failure = late ? FAILURE_BACKOFF : FAILURE_PERMANENT, .text = error });
}

static int read_secrets(struct device *d)
{
	int r = 0;

	if (!d->secrets)
		r = tls_secrets_new(d->manager, d->name, on_secrets, d, &d->secrets);
	return r < 0 ? r : tls_secrets_ready(d->secrets, &d->keys, &d->target);
}

int device_tls_ready(struct device *d, struct tls_plan *ret)
{
	int r = tls_wanted(&d->keys, &d->target) ? read_secrets(d) : 0;

	if (r < 0)
		return r;
	tls_plan_make(ret, &d->keys, &d->target, d->secrets, d->ktls.distrust);
	return 0;
}

struct tls_secrets *device_tls_exchange(struct device *d, struct tls_secrets *secrets)
{
	struct tls_secrets *before = d->secrets;

	if (secrets)
		tls_secrets_set_done(secrets, on_secrets);
	d->secrets = secrets;
	return before;
}

void device_tls_refresh(struct device *d)
{
	int r = 0;

	if (d->target.n_servers && tls_wanted(&d->keys, &d->target))
		r = read_secrets(d);
	if (r < 0 && r != -EAGAIN)
		device_log(d, LOG_WARNING, "cannot read keys and certificates: %s",
			   strerror(-r));
}
