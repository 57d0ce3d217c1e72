#include "daemon/cli/start.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/proto/manager.h"
#include "daemon/proto/varlink.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

#define NOTIFY_MAX	128
#define AWAIT_PAUSE_USEC	(50 * USEC_PER_MSEC)
#define READY_USEC	(30 * USEC_PER_SEC)	/* in which a started daemon must be ready */

int cli_find_daemon(const struct cli *cli)
{
	_cleanup_free_ char *path = NULL;
	struct varlink_client *client;
	int r;

	if (asprintf(&path, "%s/" MANAGER_SOCKET, cli->runtime_dir) < 0)
		path = NULL;
	r = varlink_client_connect(cli_must(path), &client);
	if (r == 0)
		varlink_client_close(client);
	return r;
}

int cli_await_daemon(const struct cli *cli, uint64_t deadline_usec)
{
	int r;

	while (((r = cli_find_daemon(cli)) == -ENOENT || r == -ECONNREFUSED) &&
	       now_usec() < deadline_usec)
		usleep(AWAIT_PAUSE_USEC);
	return r;
}

/* ---- by systemd -------------------------------------------------------------------- */

bool cli_in_initramfs(void)
{
	return access("/etc/initrd-release", F_OK) == 0;
}

/* A daemon of ours would live, and end, in the unit of whoever calls us. */
static bool started_by_systemd(const struct cli *cli)
{
	char *const argv[] = { (char *)"systemctl", (char *)"start", (char *)"nbdd.service",
			       NULL };
	posix_spawn_file_actions_t quiet;
	int r, status;
	pid_t pid;

	if (cli_in_initramfs() || access("/run/systemd/system", F_OK) < 0)
		return false;
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	r = posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&quiet);
	if (r != 0 || waitpid(pid, &status, 0) != pid)
		return false;
	return status == 0 && cli_find_daemon(cli) == 0;
}

/* ---- by ourselves ------------------------------------------------------------------ */

/* nbdd lies beside us, or where it was installed; else we are it: the scripts of an initramfs
 * for nbd-client copy nbd-client alone. */
static void find_nbdd(char path[static PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 8);
	char *slash;

	path[n > 0 ? n : 0] = '\0';
	slash = strrchr(path, '/');
	if (slash) {
		strcpy(slash + 1, "nbdd");
		if (access(path, X_OK) == 0)
			return;
	}
	strcpy(path, NBDD_SBINDIR "/nbdd");
	if (access(path, X_OK) < 0)
		strcpy(path, "/proc/self/exe");
}

static void redirect(void)
{
	int null = open("/dev/null", O_RDWR), log = open("/dev/kmsg", O_WRONLY);

	dup2(null, STDIN_FILENO);
	dup2(log >= 0 ? log : null, STDOUT_FILENO);
	dup2(log >= 0 ? log : null, STDERR_FILENO);
	close_range(STDERR_FILENO + 1, ~0u, 0);
}

/* In the child.  systemd spares a process whose name begins with `@` when it kills at the
 * end of the initramfs and of the system. */
static _noreturn_ void become_nbdd(const struct cli *cli, const struct start_spec *spec,
				   const char *path, const char *address)
{
	const char *name = spec->mark || cli_in_initramfs() ? "@nbdd" : "nbdd";
	char directory[PATH_MAX], config[PATH_MAX], notify[NOTIFY_MAX + 16];
	/* Nothing of the unit that called us, whose journal and watchdog are not ours. */
	char *const environment[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", notify,
				      NULL };
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	redirect();
	umask(022);
	snprintf(notify, sizeof(notify), "NOTIFY_SOCKET=%s", address);
	snprintf(directory, sizeof(directory), "--runtime-dir=%s", cli->runtime_dir);
	snprintf(config, sizeof(config), "--config=%s", spec->config ? spec->config : "");
	if (chdir("/") == 0 && spec->config)
		execle(path, name, directory, config, "--nbdtab=/dev/null", NULL, environment);
	else
		execle(path, name, directory, NULL, environment);
	_exit(127);
}

/* The daemon tells this socket that it is ready, as it would tell systemd. */
static int open_notify(char name[static NOTIFY_MAX])
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(address);

	/* Bound to no name, it gets one from the kernel: five characters after a NUL. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		return -errno;
	snprintf(name, NOTIFY_MAX, "@%.*s",
		 (int)(len - offsetof(struct sockaddr_un, sun_path) - 1),
		 address.sun_path + 1);
	return STEAL_FD(fd);
}

static bool is_ready(int notify)
{
	char text[4096];
	ssize_t n = recv(notify, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[MAX(n, (ssize_t)0)] = '\0';
	return strstr(text, "READY=1");
}

/* 0, or -errno: -ECHILD when it has ended. */
static int wait_ready(int notify, pid_t pid)
{
	_cleanup_close_ int process = pidfd_open(pid, 0);
	struct pollfd p[] = { { .fd = notify, .events = POLLIN },
			      { .fd = process, .events = POLLIN } };
	uint64_t deadline = usec_add(now_usec(), READY_USEC), left;

	while ((left = usec_sub(deadline, now_usec()))) {
		if (poll(p, ARRAY_SIZE(p), (int)(left / USEC_PER_MSEC)) < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents && is_ready(notify))
			return 0;
		if (p[1].revents)
			return -ECHILD;
	}
	return -ETIMEDOUT;
}

/* 0 or -errno. */
static int spawn(const struct cli *cli, const struct start_spec *spec, const char *path)
{
	char address[NOTIFY_MAX];
	_cleanup_close_ int notify = open_notify(address);
	pid_t pid;

	if (notify < 0)
		return notify;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		become_nbdd(cli, spec, path, address);
	return pid < 0 ? -errno : wait_ready(notify, pid);
}

int cli_start_daemon(const struct cli *cli, const struct start_spec *spec)
{
	char path[PATH_MAX];
	int r = cli_find_daemon(cli);

	if (r != -ENOENT && r != -ECONNREFUSED)
		return CLI_OK;	/* anything else the call itself will tell */
	if (geteuid() != 0)
		return cli_error(cli, CLI_PERMISSION, "only root may attach a device");
	if (started_by_systemd(cli))
		return CLI_OK;
	find_nbdd(path);
	r = spawn(cli, spec, path);
	/* Somebody else may have been quicker: then there is one all the same. */
	if (r < 0 && cli_find_daemon(cli) < 0)
		return cli_error(cli, CLI_FAILED, "cannot start %s: %s (see the kernel's log)",
				 path, r == -ECHILD ? "it ended at once" : strerror(-r));
	return CLI_OK;
}
