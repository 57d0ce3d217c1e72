/* What the programs of this folder do when a promise does not hold: say where, and end. */
#pragma once

#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) do {							\
	if (!(condition)) {							\
		const char *_e = nbd_get_error();				\
		fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, \
			_e ? _e : "no error");					\
		exit(1);							\
	}									\
} while (0)
