/* RFC 3986 by libxml2, which is loaded when the first URI is parsed: on many systems it
 * brings tens of megabytes of ICU along, which a memory-locked daemon must not hold. */
#pragma once

#include <stdbool.h>

#include "lib/util/macro.h"

/* The parts of a URI, percent-decoded except for the query; NULL where there is none. */
struct uri_parts {
	char *scheme, *server, *user, *path, *query;
	int port;		/* 0 when there is none */
};

/* 0; -EINVAL when TEXT is not a URI; -ENOTSUP when libxml2 cannot be loaded; -ENOMEM.
 * The parts are to be freed by uri_parts_clear. */
_must_check_ int xml_uri_parse(const char *text, struct uri_parts *ret);
void uri_parts_clear(struct uri_parts *p);

/* Can libxml2 be loaded? */
bool xml_uri_available(void);
