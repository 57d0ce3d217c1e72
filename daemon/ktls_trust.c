#include "daemon/ktls_trust.h"

#include <stdio.h>

#include "daemon/device.h"
#include "daemon/log.h"
#include "daemon/move.h"
#include "lib/util/clock.h"

static const struct {
	const char *why;
	bool ours;		/* a relay would have gone on */
} ends[] = {
	[KTLS_END_OTHER] = { NULL },
	[KTLS_END_ALERT] = { "the server sent a TLS alert" },
	[KTLS_END_KEY] = { "the server changed its TLS key (KeyUpdate)" },
	[KTLS_END_TICKET] = { "the server sent a late TLS session ticket, which the kernel's TLS "
			      "cannot read over", true },
	[KTLS_END_HANDSHAKE] = { "the server sent an unexpected TLS handshake message" },
	[KTLS_END_RECORD] = { "the server sent a TLS record that the kernel cannot read", true },
};

static bool too_often(const struct ktls_trust *t)
{
	uint64_t oldest = t->ends_usec[t->n_ends % KTLS_ENDS_MAX];

	return oldest && now_usec() - oldest <= KTLS_ENDS_MINUTES * USEC_PER_MINUTE;
}

bool ktls_distrust(struct device *d, bool candidate, const char *why)
{
	const struct device_keys *keys = candidate ? &d->move->keys : &d->keys;
	struct ktls_trust *t = candidate ? &d->move->ktls : &d->ktls;

	if (keys->kernel_tls != CONF_KERNEL_TLS_AUTO || t->distrust[0])
		return false;
	snprintf(t->distrust, sizeof(t->distrust), "%s", why);
	device_log(d, LOG_WARNING, "the kernel's TLS is given up: %s; a relay does it from now on "
		   "(until 'nbdctl reconnect')", why);
	return true;
}

const char *ktls_trust_end(struct device *d, enum ktls_end end)
{
	struct ktls_trust *t = &d->ktls;
	char text[TLS_WHY_MAX];

	if (!ends[end].ours)
		return ends[end].why;
	t->ends_usec[t->n_ends++ % KTLS_ENDS_MAX] = now_usec();
	if (too_often(t)) {
		snprintf(text, sizeof(text), "%d connections ended within %d min: %s",
			 KTLS_ENDS_MAX, KTLS_ENDS_MINUTES, ends[end].why);
		ktls_distrust(d, false, text);
	}
	return ends[end].why;
}

bool ktls_trust_warning(const struct device *d, char *text, size_t size)
{
	if (d->keys.kernel_tls != CONF_KERNEL_TLS_REQUIRE || !too_often(&d->ktls))
		return false;
	snprintf(text, size, "the server's TLS is none that the kernel can follow: %d "
		 "connections ended within %d min; a relay could go on, but kernel-tls is "
		 "'require'", KTLS_ENDS_MAX, KTLS_ENDS_MINUTES);
	return true;
}
