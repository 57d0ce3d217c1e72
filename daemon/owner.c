#include "daemon/owner.h"

#include <pwd.h>
#include <stddef.h>
#include <unistd.h>

#include "daemon/service.h"

struct owners owners_find(void)
{
	const struct passwd *p = getpwnam(SERVICE_USER);

	return (struct owners){ .user = p ? p->pw_uid : 0, .self = geteuid() };
}

bool owners_have(const struct owners *o, uid_t uid)
{
	return uid == 0 || uid == o->user || uid == o->self;
}
