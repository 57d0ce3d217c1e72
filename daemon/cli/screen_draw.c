/* The screen's picture. */
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/screen.h"
#include "daemon/cli/table.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

#define NARROW		64		/* columns below which there is no room for bars */
#define LABEL		13		/* columns before what detail.c says */
#define NAME_SHORT	12
#define NAME_LONG	32

/* ---- bars -------------------------------------------------------------------------- */

#define LEVELS 8

static const char *bar(double value, double highest)
{
	static const char *const bars[LEVELS] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
	unsigned level;

	if (value < 0)
		return " ";
	level = highest > 0 ? (unsigned)(value / highest * (LEVELS - 1) + 0.5) : 0;
	if (value > 0 && !level)
		level = 1;
	return bars[MIN(level, (unsigned)LEVELS - 1)];
}

/* Cells begin at multiples of their length, so that they stay as they are while they move:
 * CELLS gets the values of WIDTH of them, the newest last. */
static void gather(double *cells, const double *values, unsigned n, uint64_t seconds,
		   unsigned width, bool sums)
{
	unsigned length = (SCREEN_SAMPLES + width - 1) / width;
	uint64_t newest = seconds ? (seconds - 1) / length : 0;

	for (unsigned i = 0; i < width; i++)
		cells[i] = -1;
	for (unsigned back = 1; back <= n && back <= seconds; back++) {
		uint64_t age = newest - (seconds - back) / length;
		double v = values[(seconds - back) % SCREEN_SAMPLES];
		double *cell;

		if (age >= width || v < 0)
			continue;
		cell = &cells[width - 1 - age];
		*cell = *cell < 0 ? v : sums ? *cell + v : MAX(*cell, v);
	}
}

void screen_spark(char buf[static SPARK_MAX * 3 + 1], const double *values, unsigned n,
		  uint64_t seconds, unsigned width, bool sums)
{
	double cells[SPARK_MAX], highest = 0;
	char *to = buf;

	width = MIN(width, (unsigned)SPARK_MAX);
	*to = '\0';
	if (!width)
		return;
	gather(cells, values, n, seconds, width, sums);
	for (unsigned i = 0; i < width; i++)
		highest = MAX(highest, cells[i]);
	for (unsigned i = 0; i < width; i++)
		to = stpcpy(to, bar(cells[i], highest));
}

enum curve { RATE, LATENCY, OUTAGES };

static void spark_of(char buf[static SPARK_MAX * 3 + 1], const struct screen *s,
		     const struct screen_row *row, enum curve curve, unsigned width)
{
	double values[SCREEN_SAMPLES];

	for (unsigned i = 0; i < SCREEN_SAMPLES; i++) {
		const struct screen_sample *x = &row->samples[i];

		values[i] = curve == RATE ? x->rate : curve == LATENCY ? x->latency_usec :
			    x->outages;
	}
	screen_spark(buf, values, row->n, s->seconds, width, curve == OUTAGES);
}

/* ---- numbers ----------------------------------------------------------------------- */

static const struct screen_sample *newest(const struct screen *s, const struct screen_row *row)
{
	static const struct screen_sample none = { -1, -1, 0 };

	return row->n ? &row->samples[(s->seconds - 1) % SCREEN_SAMPLES] : &none;
}

#define NUMBER_MAX (FORMAT_MAX + 8)

static const char *rate_text(char buf[static NUMBER_MAX], double rate)
{
	char size[FORMAT_MAX];

	if (rate < 0)
		return "-";
	snprintf(buf, NUMBER_MAX, "%s/s", format_size(size, (uint64_t)rate));
	return buf;
}

static const char *latency_text(char buf[static NUMBER_MAX], double usec)
{
	if (usec < 0)
		return "-";
	if (usec < 1000)
		snprintf(buf, NUMBER_MAX, "%.0f us", usec);
	else if (usec < 1000000)
		snprintf(buf, NUMBER_MAX, "%.1f ms", usec / 1000);
	else
		snprintf(buf, NUMBER_MAX, "%.1f s", usec / 1000000);
	return buf;
}

/* ---- the list ---------------------------------------------------------------------- */

struct layout {
	unsigned columns, name, spark;
	bool colour;
};

enum { FIXED = 7 + 12 + 12 + 8 + 4, GAPS = 8 };	/* device, state, rate, latency, outages */

static struct layout lay_out(const struct screen *s, unsigned columns, bool colour)
{
	struct layout l = { .columns = columns, .name = strlen("NAME"), .colour = colour };

	for (size_t i = 0; i < s->n_rows; i++)
		l.name = MAX(l.name, (unsigned)strlen(s->rows[i]->name));
	l.name = MIN(l.name, (unsigned)(columns < 120 ? NAME_SHORT : NAME_LONG));
	if (columns >= NARROW)
		l.spark = MIN((columns - FIXED - GAPS - l.name) / 3, (unsigned)SCREEN_SAMPLES);
	return l;
}

struct cells {
	const char *device, *name, *state, *rate, *latency, *outages;
	const char *sparks[3];
};

static void put(FILE *out, const char *text, unsigned width, bool right)
{
	table_print_cell(out, text, width, right);
	fputc(' ', out);
}

static void print_cells(FILE *out, const struct layout *l, const struct cells *c)
{
	const char *paint = l->colour ? state_colour(c->state) : "";
	const char *numbers[3] = { c->rate, c->latency, c->outages };
	static const unsigned widths[3] = { 12, 8, 4 };

	put(out, c->device, 7, false);
	put(out, c->name, l->name, false);
	fputs(paint, out);
	put(out, c->state, 12, false);
	fputs(*paint ? "\033[m" : "", out);
	for (unsigned i = 0; i < 3; i++) {
		put(out, numbers[i], widths[i], true);
		if (l->spark)
			table_print_cell(out, c->sparks[i], l->spark, false);
		if (l->spark && i < 2)
			fputc(' ', out);
	}
	fputc('\n', out);
}

static void print_row(FILE *out, const struct screen *s, const struct screen_row *row,
		      const struct layout *l)
{
	char rate[NUMBER_MAX], latency[NUMBER_MAX], outages[24];
	char sparks[3][SPARK_MAX * 3 + 1];
	const struct screen_sample *x = newest(s, row);
	const char *node = strncmp(row->device, "/dev/", 5) == 0 ? row->device + 5 : "-";

	snprintf(outages, sizeof(outages), "%llu", (unsigned long long)row->outages);
	for (unsigned i = 0; i < 3; i++)
		spark_of(sparks[i], s, row, (enum curve)i, l->spark);
	print_cells(out, l, &(struct cells){
		node, row->name, row->state, rate_text(rate, x->rate),
		latency_text(latency, x->latency_usec), outages,
		{ sparks[RATE], sparks[LATENCY], sparks[OUTAGES] } });
}

static void print_summary(FILE *out, const struct screen *s, unsigned columns)
{
	char text[128], rate[NUMBER_MAX];
	double sum = 0;
	size_t away = 0;

	for (size_t i = 0; i < s->n_rows; i++) {
		const char *state = s->rows[i]->state;

		sum += MAX(newest(s, s->rows[i])->rate, 0.0);
		away += strcmp(state, "connected") != 0 && strcmp(state, "degraded") != 0;
	}
	snprintf(text, sizeof(text), "%zu device%s, %zu not connected, %s; q ends", s->n_rows,
		 s->n_rows == 1 ? "" : "s", away, rate_text(rate, sum));
	table_print_cell(out, text, columns, false);
	fputc('\n', out);
}

void screen_draw(FILE *out, const struct screen *s, unsigned columns, unsigned lines,
		 bool colour, uint64_t age_usec)
{
	struct layout l = lay_out(s, columns, colour);
	char trouble[CLI_TEXT_MAX];
	unsigned used = 2;
	size_t i;

	print_summary(out, s, columns);
	print_cells(out, &(struct layout){ l.columns, l.name, l.spark, false }, &(struct cells){
		"DEVICE", "NAME", "STATE", "RATE", "LATENCY", "OUT", { "2 min", "2 min",
		"2 min" } });
	for (i = 0; i < s->n_rows; i++) {
		const struct screen_row *row = s->rows[i];
		bool note = *device_trouble(trouble, row->status, age_usec);

		/* The last line says how many have no place. */
		if (used + 1 + note + (i + 1 < s->n_rows) > lines)
			break;
		print_row(out, s, row, &l);
		if (note) {
			fputs("    ", out);
			table_print_cell(out, trouble, MAX(columns, 20u) - 4, false);
			fputc('\n', out);
		}
		used += 1 + note;
	}
	if (i < s->n_rows)
		fprintf(out, "%zu more\n", s->n_rows - i);
}

/* ---- one device -------------------------------------------------------------------- */

void screen_draw_detail(FILE *out, const struct screen *s, unsigned columns, bool colour,
			uint64_t age_usec)
{
	static const char *const labels[] = { "Rate", "Latency", "Outages" };
	unsigned width = columns > LABEL + 14 ? columns - LABEL - 14 : 0;
	const struct screen_row *row = s->rows[0];
	const struct screen_sample *x = newest(s, row);
	char spark[SPARK_MAX * 3 + 1], rate[NUMBER_MAX], latency[NUMBER_MAX];
	const char *numbers[] = { rate_text(rate, x->rate), latency_text(latency, x->latency_usec),
				  "" };

	show_device(out, row->status, colour, age_usec);
	for (unsigned i = 0; i < ARRAY_SIZE(labels); i++) {
		spark_of(spark, s, row, (enum curve)i, MIN(width, (unsigned)SCREEN_SAMPLES));
		fprintf(out, "%*s: ", LABEL - 2, labels[i]);
		put(out, numbers[i], 12, true);
		fprintf(out, "%s\n", spark);
	}
}
