#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LOG_PREFIX_MAX 16

/* The one piece of state without an owner to hang it on: where log lines go. */
static struct {
	bool debug;
	bool known, journal;
	bool asked, kernel;
	unsigned long dropped;
} log_state;

void log_set_debug(bool on)
{
	log_state.debug = on;
}

/* systemd sets JOURNAL_STREAM when stderr is the journal, which reads `<N>` prefixes. */
static bool to_journal(void)
{
	if (!log_state.known) {
		log_state.known = true;
		log_state.journal = getenv("JOURNAL_STREAM") != NULL;
	}
	return log_state.journal;
}

/* A daemon that nbd-client has started writes to the kernel's log, which reads `<N>` too. */
static bool to_kernel_log(void)
{
	struct stat st;

	if (!log_state.asked)
		log_state.kernel = fstat(STDERR_FILENO, &st) == 0 && S_ISCHR(st.st_mode) &&
				   st.st_rdev == makedev(1, 11);
	log_state.asked = true;
	return log_state.kernel;
}

/* A pipe or socket that polls writable takes at least PIPE_BUF bytes without blocking;
 * /dev/kmsg never polls writable, and never blocks. */
static bool write_line(const char *line, size_t len)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (!to_kernel_log() && (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT)))
		return false;
	return write(STDERR_FILENO, line, len) == (ssize_t)len;
}

/* Write what stands before a message; its length. */
static int begin_line(char line[static LOG_PREFIX_MAX], int priority)
{
	char level[8] = "";

	if (to_journal() || to_kernel_log())
		snprintf(level, sizeof(level), "<%d>", priority & LOG_PRIMASK);
	return snprintf(line, LOG_PREFIX_MAX, "%s%s", level, to_journal() ? "" : "nbdd: ");
}

static void report_dropped(void)
{
	char line[128];
	int n = begin_line(line, LOG_WARNING);

	n += snprintf(line + n, sizeof(line) - (size_t)n, "%lu log lines were dropped here\n",
		      log_state.dropped);
	if (write_line(line, (size_t)n))
		log_state.dropped = 0;
}

void log_line(int priority, const char *format, ...)
{
	char line[LOG_LINE_MAX];
	int saved = errno, n;
	size_t len;
	va_list ap;

	if (priority == LOG_DEBUG && !log_state.debug)
		return;
	n = begin_line(line, priority);
	va_start(ap, format);
	errno = saved;
	vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, ap);
	va_end(ap);
	len = strlen(line);
	line[len++] = '\n';
	if (log_state.dropped)
		report_dropped();
	if (!write_line(line, len))
		log_state.dropped++;
	errno = saved;
}
