/* What a resolver may say on its own word is addresses alone. */
#pragma once

#include "daemon/resolver_child.h"

/* Does R say of servers, export and TLS what KEYS do, whose URI only root writes?  0, or
 * -EPROTO and why in MESSAGE. */
_must_check_ int resolver_check(const struct resolved *r, const struct device_keys *keys,
				char message[static RESOLVER_MESSAGE_MAX]);

/* Must there be TLS, by the key or the URI's scheme? */
bool resolver_requires_tls(const struct device_keys *keys);
/* Does URI, or NULL, say that the server's certificate is not to be looked at? */
bool resolver_skips_verify(const char *uri);
