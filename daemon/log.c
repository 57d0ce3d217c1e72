#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#define LOG_PREFIX_MAX 16

/* The one piece of state without an owner to hang it on: where log lines go. */
static struct {
	bool debug;
	bool known, journal;
	bool asked, kernel;
	unsigned long dropped;
	pid_t keeper;			/* who has the backlog */
	sd_event_source *writable;
	size_t kept;
	char backlog[LOG_BACKLOG_MAX];
	struct log_journal entries;
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

static bool is_keeper(void)
{
	return log_state.keeper && log_state.keeper == getpid();
}

/* The kept lines, whole ones, as far as there is room; then how many more there were. */
static void catch_up(void)
{
	size_t done = 0;

	while (is_keeper() && done < log_state.kept) {
		const char *line = log_state.backlog + done;
		size_t len = strcspn(line, "\n") + 1;

		if (!write_line(line, len))
			break;
		done += len;
	}
	if (done) {
		log_state.kept -= done;
		memmove(log_state.backlog, log_state.backlog + done, log_state.kept + 1);
	}
	if (log_state.dropped && (!is_keeper() || !log_state.kept))
		report_dropped();
}

/* Written, or kept; false: neither. */
static bool keep_line(const char *line, size_t len)
{
	bool behind = is_keeper() && (log_state.kept || log_state.dropped);

	if (!behind && write_line(line, len))
		return true;
	if (!is_keeper() || log_state.dropped ||
	    log_state.kept + len >= sizeof(log_state.backlog))
		return false;
	memcpy(log_state.backlog + log_state.kept, line, len);
	log_state.kept += len;
	log_state.backlog[log_state.kept] = '\0';
	sd_event_source_set_enabled(log_state.writable, SD_EVENT_ON);
	return true;
}

static int on_writable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	catch_up();
	if (revents & (EPOLLERR | EPOLLHUP))		/* nobody reads any more */
		log_state.kept = log_state.dropped = 0;
	if (!log_state.kept && !log_state.dropped)
		return sd_event_source_set_enabled(s, SD_EVENT_OFF);
	return 0;
}

/* A file has no such event, and never needs it. */
void log_keep(struct sd_event *event)
{
	log_state.entries.event = event;
	if (sd_event_add_io(event, &log_state.writable, STDERR_FILENO, EPOLLOUT, on_writable,
			    NULL) < 0)
		return;
	sd_event_source_set_enabled(log_state.writable, SD_EVENT_OFF);
	log_state.keeper = getpid();
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
	catch_up();
	if (!keep_line(line, len))
		log_state.dropped++;
	errno = saved;
}

#define FIELDS_MAX	12

/* False: there is no journal. */
static bool send_entry(int priority, const struct log_field *fields, size_t n, const char *text)
{
	const char level[] = { (char)('0' + (priority & LOG_PRIMASK)), '\0' };
	struct log_field all[FIELDS_MAX] = {
		{ "MESSAGE", text }, { "PRIORITY", level }, { "SYSLOG_IDENTIFIER", "nbdd" },
	};
	int r;

	for (size_t i = 0; i < n && i + 3 < FIELDS_MAX; i++)
		all[i + 3] = fields[i];
	r = log_journal_send(&log_state.entries, all, MIN(n + 3, (size_t)FIELDS_MAX));
	log_state.dropped += r == -ENOBUFS;
	return r == 0 || r == -ENOBUFS;
}

void log_entry(int priority, const struct log_field *fields, size_t n, const char *format, ...)
{
	char text[LOG_LINE_MAX];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (!to_journal() || !send_entry(priority, fields, n, text))
		log_line(priority, "%s", text);
}
