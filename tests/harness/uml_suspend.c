/* Preloaded into User-Mode Linux: a suspend that lasts.
 *
 * Its own ends at once: it waits as an idle CPU does, until the next timer, and while the machine
 * is suspended there is none.  Here, when no timer is set and the file UML_SUSPEND is there, it is
 * renamed to UML_SUSPEND.asleep, and the machine sleeps as long as that is there.  Meanwhile the
 * guest's CLOCK_MONOTONIC stands still. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void sleep_while_there(const char *file)
{
	const struct timespec moment = { .tv_nsec = 10 * 1000 * 1000 };
	char asleep[4096];

	snprintf(asleep, sizeof(asleep), "%s.asleep", file);
	if (rename(file, asleep) < 0)
		return;
	while (access(asleep, F_OK) == 0)
		nanosleep(&moment, NULL);
}

int __attribute__((visibility("default")))
timer_gettime(timer_t timer, struct itimerspec *value)
{
	int (*next)(timer_t, struct itimerspec *) = dlsym(RTLD_NEXT, "timer_gettime");
	const char *file = getenv("UML_SUSPEND");
	int r = next(timer, value);

	if (r == 0 && file && !value->it_value.tv_sec && !value->it_value.tv_nsec)
		sleep_while_there(file);
	return r;
}
