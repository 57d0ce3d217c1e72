/* The daemon's log: lines to the journal or stderr that never block the caller. */
#pragma once

#include <stdbool.h>
#include <syslog.h>

#include "daemon/log_journal.h"
#include "lib/util/macro.h"

#define LOG_LINE_MAX 2048

#define LOG_BACKLOG_MAX (64u << 10)

/* One line of PRIORITY (LOG_ERR … LOG_DEBUG).  While the pipe or socket behind stderr is full,
 * lines are kept for later, LOG_BACKLOG_MAX bytes of them; further ones are counted, and the
 * count is logged after them. */
void log_line(int priority, const char *format, ...) _printf_(2, 3);

/* The same with fields of its own for the journal, where stderr is that. */
void log_entry(int priority, const struct log_field *fields, size_t n, const char *format, ...)
	_printf_(4, 5);

/* This process keeps lines and writes them when there is room again; its children do not. */
struct sd_event;
void log_keep(struct sd_event *event);

/* LOG_DEBUG lines are left out unless asked for. */
void log_set_debug(bool on);

#define log_error(...)		log_line(LOG_ERR, __VA_ARGS__)
#define log_warning(...)	log_line(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)		log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)		log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)		log_line(LOG_DEBUG, __VA_ARGS__)
