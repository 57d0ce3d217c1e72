/* Entries with fields for the journal, by its native protocol
 * (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), without ever waiting for it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "lib/util/macro.h"

#define LOG_ENTRY_MAX		4096		/* bytes of one */
#define LOG_ENTRIES_KEPT	(32u << 10)	/* bytes, while the journal is busy */

struct log_field {
	const char *name, *value;
};

struct log_journal {
	int fd;				/* -1: not connected */
	bool known;			/* one attempt has been made */
	sd_event *event;		/* NULL: entries are not kept */
	sd_event_source *writable;
	size_t kept;
	char backlog[LOG_ENTRIES_KEPT];	/* each after its length, a uint32_t */
};

/* The journal takes it, or it is kept: 0.  -ENOBUFS: there is no room to keep it; another
 * -errno: there is no journal. */
_must_check_ int log_journal_send(struct log_journal *j, const struct log_field *fields,
				  size_t n);
