/* The daemon's log: lines to the journal or stderr that never block the caller. */
#pragma once

#include <stdbool.h>
#include <syslog.h>

#include "lib/util/macro.h"

#define LOG_LINE_MAX 2048

/* One line of PRIORITY (LOG_ERR … LOG_DEBUG).  A line that does not fit into the pipe or
 * socket behind stderr is counted, and the count is logged when there is room again. */
void log_line(int priority, const char *format, ...) _printf_(2, 3);

/* LOG_DEBUG lines are left out unless asked for. */
void log_set_debug(bool on);

#define log_error(...)		log_line(LOG_ERR, __VA_ARGS__)
#define log_warning(...)	log_line(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)		log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)		log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)		log_line(LOG_DEBUG, __VA_ARGS__)
