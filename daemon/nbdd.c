/* nbdd: attaches NBD exports as block devices and keeps them attached. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "daemon/handover.h"
#include "daemon/inherit.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/newroot.h"
#include "daemon/notify.h"
#include "daemon/power.h"
#include "daemon/program.h"
#include "daemon/programs.h"
#include "daemon/reload.h"
#include "daemon/spawner.h"
#include "daemon/status.h"
#include "lib/util/cleanup.h"

static const char usage_text[] =
	"Usage: nbdd [OPTION]...\n"
	"Attach NBD exports as /dev/nbdN and keep them attached, in the foreground.\n"
	"\n"
	"  --config=FILE       devices and their keys (" NBDD_SYSCONFDIR "/nbdd.conf)\n"
	"  --nbdtab=FILE       devices as nbd-client has them (" NBDD_SYSCONFDIR "/nbdtab)\n"
	"  --runtime-dir=DIR   where the control socket is (" NBDD_RUNDIR ")\n"
	"  --replace           take over from the nbdd that runs, without a gap\n"
	"  --serve=connections make connections for an nbdd that is not root\n"
	"  --serve=programs    run programs of on-event for it\n"
	"  --debug             log more\n"
	"  --help, --version\n"
	"\n"
	"nbdctl(8) controls it; keys and files: nbdd.conf(5).\n";

enum {
	OPT_CONFIG = 256, OPT_NBDTAB, OPT_RUNTIME_DIR, OPT_REPLACE, OPT_SERVE, OPT_DEBUG, OPT_HELP,
	OPT_VERSION
};

static const struct option options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "nbdtab", required_argument, NULL, OPT_NBDTAB },
	{ "runtime-dir", required_argument, NULL, OPT_RUNTIME_DIR },
	{ "replace", no_argument, NULL, OPT_REPLACE },
	{ "serve", required_argument, NULL, OPT_SERVE },
	{ "debug", no_argument, NULL, OPT_DEBUG },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{}
};

/* What an nbdd that is not root asks of others; each is a process of its own, on whose socket
 * systemd listens for it.  0 or -errno, which was logged. */
static const struct service_row {
	const char *name;
	int (*serve)(const struct manager_options *o);
} services[] = {
	{ "programs", program_serve },
	{ "connections", spawner_serve },
};

static const struct service_row *find_service(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(services); i++)
		if (strcmp(services[i].name, name) == 0)
			return &services[i];
	fprintf(stderr, "nbdd: --serve=%s: expected one of:", name);
	for (size_t i = 0; i < ARRAY_SIZE(services); i++)
		fprintf(stderr, " %s", services[i].name);
	fputc('\n', stderr);
	return NULL;
}

/* 1: go on, as *RET_SERVICE unless that is NULL; 0 or -EINVAL: end. */
static int parse_args(int argc, char **argv, struct manager_options *o,
		      const struct service_row **ret_service)
{
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case OPT_CONFIG:
			o->config = optarg;
			break;
		case OPT_NBDTAB:
			o->nbdtab = optarg;
			break;
		case OPT_RUNTIME_DIR:
			o->runtime_dir = optarg;
			break;
		case OPT_REPLACE:
			o->replace = true;
			break;
		case OPT_SERVE:
			*ret_service = find_service(optarg);
			if (!*ret_service)
				return -EINVAL;
			break;
		case OPT_DEBUG:
			log_set_debug(true);
			break;
		case OPT_HELP:
			fputs(usage_text, stdout);
			return 0;
		case OPT_VERSION:
			puts("nbdd " NBDD_VERSION);
			return 0;
		default:
			fputs("Try 'nbdd --help'.\n", stderr);
			return -EINVAL;
		}
	if (optind < argc) {
		fprintf(stderr, "nbdd: unexpected argument '%s'; try 'nbdd --help'\n",
			argv[optind]);
		return -EINVAL;
	}
	return 1;
}

/* Descriptors 0 to 2 exist: no socket may get one of their numbers. */
static void open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	fd_close(fd);
}

/* As udev and systemd do: best effort, and what comes of it shows when it is used.  The
 * kernel loads tls only for those who may, which connectors may not.  Who is not root may not,
 * either, and has whoever started it for that. */
static void load_modules(void)
{
	static const char *const modules[][2] = {
		{ "nbd", "/sys/module/nbd" }, { "tls", "/sys/module/tls" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		pid_t pid = access(modules[i][1], F_OK) == 0 ? -1 : fork();

		if (pid == 0) {
			execlp("modprobe", "modprobe", "-q", modules[i][0], NULL);
			_exit(127);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

#define ENDED_BY_SIGNAL 1		/* what the event loop returns then */

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	log_notice("signal %u: ending; attached devices stay, and the next nbdd takes them "
		   "over; until then nobody reconnects them", si->ssi_signo);
	return sd_event_exit(userdata, ENDED_BY_SIGNAL);
}

static int on_hang_up(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	reload_begin(userdata, NULL);
	return 0;
}

static int setup_loop(sd_event **ret)
{
	sigset_t mask;
	sd_event *e;
	int r;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_new(&e);
	if (r < 0)
		return r;
	r = sd_event_add_signal(e, NULL, SIGTERM, on_signal, e);
	if (r >= 0)
		r = sd_event_add_signal(e, NULL, SIGINT, on_signal, e);
	if (r >= 0)
		log_keep(e);
	if (r < 0)
		return r;
	*ret = e;
	return 0;
}

/* What this daemon is in charge of, and how it came to it. */
struct start {
	struct takeover from;		/* its `inherited` also without one */
	struct handover *next;		/* waits for a successor */
	int lock;
};

/* From an nbdd that runs, or alone. */
static int gather(const struct manager_options *o, struct start *s)
{
	struct inherited *all = &s->from.inherited, passed;
	int r = o->replace ? takeover_begin(o, &s->from) : -ENOENT;

	if (r < 0 && r != -ENOENT)
		return r;
	s->lock = r == 0 ? STEAL_FD(s->from.lock) : lock_take(o->runtime_dir);
	if (s->lock < 0)
		return s->lock;
	r = inherit_from_systemd(&passed);
	if (r < 0)
		log_warning("cannot take what systemd passes: %s", strerror(-r));
	all->handed_over = s->from.sock >= 0;	/* it may have died meanwhile */
	inherited_merge(all, &passed);
	inherited_close(&passed);
	return 0;
}

static int take_charge(struct start *s, struct manager *m)
{
	int r = 0;

	if (s->from.sock >= 0)
		r = takeover_finish(&s->from, s->lock, m);
	else
		adopt_devices(m, &s->from.inherited.links);
	inherited_close(&s->from.inherited);
	/* From here on the devices are ours, and nothing but a signal is a reason to end. */
	if (r >= 0)
		manager_load(m);
	return r;
}

static int serve(struct manager *m, struct start *s)
{
	int r = manager_open(m, &s->from.inherited);

	if (r >= 0)
		r = sd_event_add_signal(m->event, NULL, SIGHUP, on_hang_up, m);
	if (r >= 0)
		r = take_charge(s, m);
	if (r >= 0) {
		(void)handover_listen(m, s->lock, &s->next);
		if (s->from.sock < 0)
			status_ready(m);
		log_info("ready: %zu device%s to attach", m->n_devices,
			 m->n_devices == 1 ? "" : "s");
		r = sd_event_loop(m->event);
		if (r == ENDED_BY_SIGNAL)
			(void)notify_send(m->notify, "STOPPING=1");
	}
	return r;
}

/* What takes long is done before a predecessor is asked, who waits for us from then on. */
static int run_manager(const struct manager_options *o, sd_event *event)
{
	struct start s = { .from = TAKEOVER_NULL, .lock = -1 };
	struct manager *m = NULL;
	int r = lock_make_directory(o->runtime_dir);

	if (r >= 0)
		r = manager_new(o, event, &m);
	if (r >= 0)
		r = gather(o, &s);
	if (r >= 0)
		r = serve(m, &s);
	manager_free(m);
	handover_free(s.next);
	takeover_free(&s.from);
	fd_close(s.lock);
	return r;
}

/* Those that need more power than nbdd keeps. */
static int start_helpers(struct manager_options *o)
{
	int r = programs_start(o->runtime_dir, o->programs);

	if (r < 0) {
		log_error("cannot start the process that runs programs of on-event: %s",
			  strerror(-r));
		o->programs = NULL;
	}
	r = lock_make_directory(o->runtime_dir);
	if (r < 0)
		return r;
	r = spawner_start(o->runtime_dir, o->spawner);
	if (r < 0)
		log_error("cannot start the process that makes connections: %s", strerror(-r));
	return r;
}

static int run_loop(struct manager_options *o, sd_event *event)
{
	/* Out of an initramfs nbdd is root. */
	int r = geteuid() == 0 ? newroot_watch(event) : 0;

	if (r < 0)
		log_warning("cannot watch for a new root: %s", strerror(-r));
	if (o->programs)
		programs_watch(o->programs, event);
	spawner_watch(o->spawner, event);
	power_hold_memory();
	r = power_drop(r > 0);
	return r < 0 ? r : run_manager(o, event);
}

static int run(struct manager_options *o)
{
	sd_event *event;
	int r;

	open_standard_fds();
	if (geteuid() == 0)
		load_modules();
	o->owners = owners_find();
	/* Reads a file at first use, which children that say a date must not. */
	tzset();
	r = start_helpers(o);
	if (r >= 0)
		r = setup_loop(&event);
	if (r < 0)
		return r;
	r = run_loop(o, event);
	if (o->programs)
		programs_stop(o->programs);
	spawner_stop(o->spawner);
	sd_event_unref(event);
	return r;
}

int nbdd_main(int argc, char **argv)
{
	struct programs programs = { .sock = -1 };
	struct spawner spawner = { .sock = -1 };
	struct manager_options o = {
		.programs = &programs, .spawner = &spawner,
		.config = NBDD_SYSCONFDIR "/nbdd.conf",
		.nbdtab = NBDD_SYSCONFDIR "/nbdtab",
		.runtime_dir = NBDD_RUNDIR,
	};
	const struct service_row *service = NULL;
	int r = parse_args(argc, argv, &o, &service);

	if (r <= 0)
		return r < 0 ? 2 : EXIT_SUCCESS;
	if (service) {
		open_standard_fds();
		return service->serve(&o) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	if (!power_suffices()) {
		fputs("nbdd: must be root, or have CAP_SYS_ADMIN, to attach block devices\n",
		      stderr);
		return EXIT_FAILURE;
	}
	return run(&o) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
