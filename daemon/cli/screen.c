/* What the screen knows. */
#include "daemon/cli/screen.h"

#include <stdlib.h>
#include <string.h>

#include "lib/util/clock.h"

#define LATENCY_SECONDS 10		/* by whose latency devices are sorted */

void screen_free(struct screen *s)
{
	for (size_t i = 0; i < s->n_rows; i++)
		free(s->rows[i]);
	free(s->rows);
	json_object_put(s->devices);
}

/* In the order in which they need attention; unknown states are between. */
static int trouble_of(const char *state)
{
	static const char *const states[] = { "failing", "refused", "reconnecting", "moving",
					      "connecting", "attaching", "detaching", "",
					      "degraded", "connected" };
	int unknown = 0;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		if (strcmp(states[i], state) == 0)
			return (int)i;
		if (!*states[i])
			unknown = (int)i;
	}
	return unknown;
}

static double recent_latency(const struct screen *s, const struct screen_row *row)
{
	double sum = 0;
	unsigned n = 0;

	for (unsigned i = 1; i <= LATENCY_SECONDS && i <= row->n; i++) {
		double one = row->samples[(s->seconds - i) % SCREEN_SAMPLES].latency_usec;

		sum += one >= 0 ? one : 0;
		n += one >= 0;
	}
	return n ? sum / n : -1;
}

/* Not connected first, then recent outages, then latency, then names. */
static int by_trouble(const void *a, const void *b, void *screen)
{
	const struct screen_row *x = *(struct screen_row *const *)a;
	const struct screen_row *y = *(struct screen_row *const *)b;
	double lx = recent_latency(screen, x), ly = recent_latency(screen, y);
	int difference = trouble_of(x->state) - trouble_of(y->state);

	if (difference)
		return difference;
	if (x->recent_usec != y->recent_usec)
		return x->recent_usec > y->recent_usec ? -1 : 1;
	if (lx < ly || lx > ly)
		return lx > ly ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void sort(struct screen *s)
{
	if (s->n_rows)
		qsort_r(s->rows, s->n_rows, sizeof(*s->rows), by_trouble, s);
}

static void copy_member(char *dst, size_t size, struct json_object *o, const char *key)
{
	char text[CLI_TEXT_MAX];

	snprintf(dst, size, "%s", member_text(text, o, key));
}

static void fill_row(struct screen_row *row, struct json_object *device, uint64_t now_usec_)
{
	struct json_object *outages = member(device, "outages");
	struct json_object *last = member(outages, "last");
	uint64_t start = member_u64(last, "start");

	copy_member(row->state, sizeof(row->state), device, "state");
	copy_member(row->device, sizeof(row->device), device, "device");
	row->index = json_object_get_int(member(device, "index"));
	row->status = device;
	row->outages = member_u64(outages, "count");
	row->recent_usec = usec_sub(now_usec_, usec_add(start, member_u64(last, "duration_usec")))
			   < SCREEN_RECENT_USEC ? start : 0;
}

/* The row of DEVICE: what was known of it goes on, in another list. */
static struct screen_row *take_row(struct screen *s, struct json_object *device)
{
	char name[SCREEN_NAME_MAX];
	struct screen_row *row;

	copy_member(name, sizeof(name), device, "name");
	for (size_t i = 0; i < s->n_rows; i++) {
		row = s->rows[i];
		if (!row || strcmp(row->name, name) != 0)
			continue;
		s->rows[i] = NULL;
		return row;
	}
	row = cli_must(calloc(1, sizeof(*row)));
	snprintf(row->name, sizeof(row->name), "%s", name);
	row->outages_last = member_u64(member(device, "outages"), "count");
	return row;
}

void screen_update(struct screen *s, struct json_object *devices, uint64_t now_real_usec)
{
	size_t n = json_object_array_length(devices);
	struct screen_row **rows = cli_must(calloc(n + 1, sizeof(*rows)));

	for (size_t i = 0; i < n; i++) {
		struct json_object *device = json_object_array_get_idx(devices, i);

		rows[i] = take_row(s, device);
		fill_row(rows[i], device, now_real_usec);
	}
	for (size_t i = 0; i < s->n_rows; i++)
		free(s->rows[i]);
	free(s->rows);
	json_object_get(devices);
	json_object_put(s->devices);
	s->devices = devices;
	s->rows = rows;
	s->n_rows = n;
	sort(s);
}

/* Counters that go back are those of another life of the device. */
static struct screen_sample difference(const struct screen_counters *a,
				       const struct screen_counters *b, uint64_t usec)
{
	struct screen_sample x = { .rate = -1, .latency_usec = -1 };

	if (!a->known || !b->known || b->bytes < a->bytes || b->requests < a->requests ||
	    b->busy_usec < a->busy_usec || !usec)
		return x;
	x.rate = (double)(b->bytes - a->bytes) * USEC_PER_SEC / (double)usec;
	if (b->requests > a->requests)
		x.latency_usec = (double)(b->busy_usec - a->busy_usec) /
				 (double)(b->requests - a->requests);
	return x;
}

void screen_sample(struct screen *s, const struct screen_counters *counters, uint64_t usec)
{
	for (size_t i = 0; i < s->n_rows; i++) {
		struct screen_row *row = s->rows[i];
		struct screen_sample x = difference(&row->last, &counters[i], usec);

		x.outages = (double)usec_sub(row->outages, row->outages_last);
		row->outages_last = row->outages;
		row->last = counters[i];
		row->samples[s->seconds % SCREEN_SAMPLES] = x;
		row->n = MIN(row->n + 1, (unsigned)SCREEN_SAMPLES);
	}
	s->seconds++;
	sort(s);
}
