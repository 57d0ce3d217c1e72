#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The one piece of state without an owner to hang it on: where log lines go. */
static struct {
	bool debug;
	bool known, journal;
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

/* A pipe or socket that polls writable takes at least PIPE_BUF bytes without blocking. */
static bool write_line(const char *line, size_t len)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return false;
	return write(STDERR_FILENO, line, len) == (ssize_t)len;
}

static void report_dropped(void)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "%s%lu log lines were dropped here\n",
			 to_journal() ? "<4>" : "nbdd: ", log_state.dropped);

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
	n = to_journal() ? snprintf(line, sizeof(line), "<%d>", priority)
			 : snprintf(line, sizeof(line), "nbdd: ");
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
