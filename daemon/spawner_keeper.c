/* The keeper of the spawner: whatever ends that but the end of nbdd, it makes another one.
 *
 * It has the same end of the way to nbdd, which it never reads: orders wait there for the next
 * spawner.  What that needs it has from its keeper's memory, for the root device may be away.
 * When the keeper is killed the spawner goes on, and both end with nbdd. */
#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/capabilities.h"
#include "daemon/log.h"
#include "daemon/newroot.h"
#include "daemon/power.h"
#include "daemon/spawner.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

/* Between the end of a spawner and the next one; twice as long after each that did not live
 * for LIVED_USEC. */
#define PAUSE_MIN_USEC	(20 * USEC_PER_MSEC)
#define PAUSE_MAX_USEC	(5 * USEC_PER_SEC)
#define LIVED_USEC	(10 * USEC_PER_SEC)

struct keeper {
	sd_event *event;
	struct sandbox *sandbox;
	int sock;
	uint64_t since_usec, pause_usec;
	sd_event_source *end, *pause;
};

static void make(struct keeper *k);

static bool nbdd_has_ended(const struct keeper *k)
{
	struct pollfd p = { .fd = k->sock };

	return poll(&p, 1, 0) == 1;
}

static int on_pause(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct keeper *k = userdata;

	k->pause = sd_event_source_disable_unref(k->pause);
	if (nbdd_has_ended(k))
		return sd_event_exit(k->event, 0);
	make(k);
	return 0;
}

/* After WHY, a clause. */
static void make_later(struct keeper *k, const char *why)
{
	bool lived = now_usec() - k->since_usec >= LIVED_USEC;
	char pause[FORMAT_MAX];

	k->pause_usec = lived ? PAUSE_MIN_USEC : MAX(2 * k->pause_usec, PAUSE_MIN_USEC);
	k->pause_usec = MIN(k->pause_usec, PAUSE_MAX_USEC);
	log_warning("the process that makes connections %s: another one is made in %s", why,
		    format_usec(pause, k->pause_usec));
	if (sd_event_add_time_relative(k->event, &k->pause, CLOCK_MONOTONIC, k->pause_usec, 1,
				       on_pause, k) < 0)
		sd_event_exit(k->event, 1);
}

static int on_end(sd_event_source *s, const siginfo_t *si, void *userdata)
{
	struct keeper *k = userdata;
	char why[64];

	k->end = sd_event_source_disable_unref(k->end);
	if (si->si_code == CLD_EXITED && si->si_status == 0)
		return sd_event_exit(k->event, 0);	/* nbdd has ended */
	snprintf(why, sizeof(why), si->si_code == CLD_EXITED ? "failed (status %d)"
		 : "was killed (signal %d)", si->si_status);
	make_later(k, why);
	return 0;
}

static void make(struct keeper *k)
{
	pid_t pid = spawner_fork(k->sock, k->sandbox, false);

	k->since_usec = now_usec();
	if (pid < 0)
		make_later(k, strerror(errno));
	else if (sd_event_add_child(k->event, &k->end, pid, WEXITED, on_end, k) < 0)
		sd_event_exit(k->event, 1);		/* it goes on alone */
}

/* Signals that end nbdd do not end them: nbdd does. */
static void take_signals(void)
{
	sigset_t mask;

	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
}

void spawner_keep(int sock, const char *runtime_dir)
{
	struct keeper k = { .sock = sock };
	int r;

	prctl(PR_SET_NAME, "keeper");
	power_hold_memory();
	take_signals();
	r = sd_event_new(&k.event);
	if (r >= 0)
		r = newroot_watch(k.event);
	if (r >= 0)
		r = sandbox_new(runtime_dir, &k.sandbox);
	if (r >= 0)
		r = power_drop_to(CAP(CAP_SYS_CHROOT), k.sandbox);
	if (r < 0)
		_exit(1);
	make(&k);
	_exit(sd_event_loop(k.event) < 0);
}
