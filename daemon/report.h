/* What was found at the start and left alone, as sentences for status. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "conf/conf.h"

#define REPORTS_MAX	64
#define REPORT_MAX	640

struct device;
struct manager;

struct report {
	int index;			/* /dev/nbdN that it is about, or -1 */
	char backend[256];		/* of that device */
	char text[REPORT_MAX];
};

struct reports {
	struct report list[REPORTS_MAX];
	size_t n;
};

/* The state file NAME is left alone: WHY, a sentence. */
void report_file(struct manager *m, const char *name, const char *why);
/* /dev/nbdINDEX was attached by an nbdd under BACKEND, and no state tells of it. */
void report_device(struct manager *m, unsigned index, const char *backend);
/* Is there a device that nobody supervises and whose identifier has the name of D, or is that
 * of its keys?  RET says so, as a sentence. */
bool report_left_over(const struct device *d, char ret[static REPORT_MAX]);
/* Those about devices that have gone meanwhile are forgotten. */
void report_refresh(struct manager *m);
