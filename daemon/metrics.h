/* The devices as metrics, in Prometheus' text format
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "lib/util/macro.h"

struct manager;

/* The text, LEN bytes, which is the caller's to free.  0 or -ENOMEM. */
_must_check_ int metrics_text(struct manager *m, char **ret, size_t *ret_len);

/* TEXT, any bytes, as it stands between the quotes of a label's value. */
void metrics_label(FILE *out, const char *text);
