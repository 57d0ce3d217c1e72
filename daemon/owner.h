/* Who an nbdd may be: root, or the user whom nbdd.service names.  What the one has left, or hands
 * over, the other takes, and nobody else's; so each of the two can replace the other. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct owners {
	uid_t user;			/* SERVICE_USER; 0: there is none */
	uid_t self;
};

/* Reads files: while these can be read. */
struct owners owners_find(void);
bool owners_have(const struct owners *o, uid_t uid);
