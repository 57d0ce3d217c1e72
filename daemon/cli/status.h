/* What `status` can show besides a table. */
#pragma once

#include "daemon/cli/cli.h"

/* metrics.c: print the metrics, or write them to PATH in one step. */
int cli_metrics(const struct cli *cli, const char *path);

/* watch.c */
int cli_watch(const struct cli *cli, struct json_object *params, bool detail);
