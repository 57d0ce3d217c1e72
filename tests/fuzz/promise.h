/* What a fuzz target promises: when it does not hold, the input is a find. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define PROMISE(condition) do {						\
	if (!(condition)) {						\
		fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
		abort();						\
	}								\
} while (0)
