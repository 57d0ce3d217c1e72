#include "daemon/tls_status.h"

#include <stdio.h>

#include "daemon/tls_secrets.h"
#include "daemon/tls_watch.h"
#include "lib/util/clock.h"

static const struct link *encrypted_link(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE && d->links[i].tls.version)
			return &d->links[i];
	return NULL;
}

static struct json_object *certificate(const char *names, int64_t expires)
{
	struct json_object *o;

	if (!expires)
		return NULL;
	o = json_object_new_object();
	json_object_object_add(o, "names", json_object_new_string(names));
	json_object_object_add(o, "expires", json_object_new_int64(
				       expires > INT64_MAX / (int64_t)USEC_PER_SEC ? INT64_MAX
				       : expires * (int64_t)USEC_PER_SEC));
	json_object_object_add(o, "days_left",
			       json_object_new_int64(tls_days_left(expires)));
	return o;
}

struct json_object *tls_status(const struct device *d)
{
	const struct link *l = encrypted_link(d);
	struct json_object *o, *why;

	if (!l)
		return NULL;
	o = json_object_new_object();
	why = l->tls.in_kernel ? NULL : json_object_new_string(l->tls.why_not);
	json_object_object_add(o, "version", json_object_new_string(link_tls_version(&l->tls)));
	json_object_object_add(o, "cipher", json_object_new_string(l->tls.cipher));
	json_object_object_add(o, "in_kernel", json_object_new_boolean(l->tls.in_kernel));
	json_object_object_add(o, "why_not_in_kernel", why);
	json_object_object_add(o, "certificate", certificate(l->tls.peer, l->tls.peer_expires));
	json_object_object_add(o, "own_certificate", certificate("", l->tls.own_expires));
	return o;
}

void tls_status_warnings(const struct device *d, struct json_object *list)
{
	const struct link *l = encrypted_link(d);
	const char *problem = tls_secrets_problem(d->secrets);
	char text[DEVICE_REASON_MAX + TLS_SECRETS_MESSAGE_MAX];

	for (int own = 0; l && own < 2; own++)
		if (tls_certificate_ends(l, own, text, sizeof(text)))
			json_object_array_add(list, json_object_new_string(text));
	if (ktls_trust_warning(d, text, sizeof(text)))
		json_object_array_add(list, json_object_new_string(text));
	if (*problem && tls_secrets_known(d->secrets)) {
		snprintf(text, sizeof(text), "%s; using what was read before", problem);
		json_object_array_add(list, json_object_new_string(text));
	}
}
