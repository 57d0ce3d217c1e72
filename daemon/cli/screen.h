/* The screen of `status --watch`: what was seen of each device in the last minutes, and a
 * picture of it.  Nothing here asks anybody, or the clock. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <json-c/json.h>

#include "daemon/cli/cli.h"

#define SCREEN_SAMPLES		120	/* seconds */
#define SCREEN_RECENT_USEC	(UINT64_C(600) * 1000000)	/* an outage is recent */
#define SCREEN_NAME_MAX		160

/* One second of a device; negative: not known. */
struct screen_sample {
	double rate;			/* bytes a second */
	double latency_usec;		/* of a request, on average */
	double outages;			/* that began */
};

/* Counters since boot, as the kernel has them. */
struct screen_counters {
	bool known;
	uint64_t bytes, requests, busy_usec;
};

struct screen_row {
	char name[SCREEN_NAME_MAX], device[32], state[32];
	int index;			/* -1: none */
	struct json_object *status;	/* borrowed from the screen's devices */
	uint64_t outages;		/* in all */
	uint64_t recent_usec;		/* start of one that is recent, or 0 */
	struct screen_counters last;
	uint64_t outages_last;
	struct screen_sample samples[SCREEN_SAMPLES];	/* second i is at i % SCREEN_SAMPLES */
	unsigned n;			/* samples that there are */
};

struct screen {
	struct json_object *devices;	/* as in Status; NULL: nothing yet */
	struct screen_row **rows;	/* sorted by trouble */
	size_t n_rows;
	uint64_t seconds;		/* samples taken, of the device with the most */
};

void screen_free(struct screen *s);
/* What Status has said; NOW is CLOCK_REALTIME.  Devices that have gone are forgotten. */
void screen_update(struct screen *s, struct json_object *devices, uint64_t now_real_usec);
/* A second has passed, of USEC: COUNTERS has those of each row, in its order. */
void screen_sample(struct screen *s, const struct screen_counters *counters, uint64_t usec);

/* Bars for the last SCREEN_SAMPLES VALUES (N of them there are, in a ring as above, SECONDS in
 * all), in WIDTH characters; the highest is a full one, and blank is what is not known. */
#define SPARK_MAX 512			/* characters */
void screen_spark(char buf[static SPARK_MAX * 3 + 1], const double *values, unsigned n,
		  uint64_t seconds, unsigned width, bool sums);

/* As many rows as fit.  AGE_USEC: how old `devices` is. */
void screen_draw(FILE *out, const struct screen *s, unsigned columns, unsigned lines,
		 bool colour, uint64_t age_usec);
/* All that is known of the one device. */
void screen_draw_detail(FILE *out, const struct screen *s, unsigned columns, bool colour,
			uint64_t age_usec);
