/* The machine was suspended: connections that the servers have given up meanwhile are made
 * anew at once, rather than when their silence is noticed. */
#pragma once

#include <stdint.h>

struct manager;

/* 0 or -errno. */
int resume_watch(struct manager *m);
