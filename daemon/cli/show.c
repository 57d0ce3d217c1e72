/* The table of devices. */
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "daemon/cli/cli.h"
#include "daemon/cli/table.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

#define WIDE 120		/* columns from which on more is shown */

#define GREEN	"\033[32m"
#define YELLOW	"\033[33m"
#define RED	"\033[31m"

static const struct state {
	const char *name, *colour;
	const char *trouble;		/* what it means to whoever uses the device */
} states[] = {
	{ "connected", GREEN, NULL },
	{ "connecting", YELLOW, "not connected yet" },
	{ "attaching", YELLOW, NULL },
	{ "degraded", YELLOW, "some of its connections are missing" },
	{ "reconnecting", YELLOW, "the server is away and I/O waits" },
	{ "refused", RED, "not resumed, and I/O waits" },
	{ "failing", RED, "dead-timeout has passed and I/O fails" },
	{ "moving", YELLOW, "on its way to another server, and I/O waits" },
	{ "detaching", YELLOW, NULL },
};

static const struct state *find_state(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (strcmp(states[i].name, name) == 0)
			return &states[i];
	return NULL;
}

/* Local, as ISO 8601 has it. */
char *date_text(char buf[static DATE_MAX], uint64_t usec)
{
	time_t t = (time_t)(usec / USEC_PER_SEC);
	struct tm tm;

	*buf = '\0';
	if (localtime_r(&t, &tm))
		strftime(buf, DATE_MAX, "%FT%T%z", &tm);
	return buf;
}

const char *state_colour(const char *name)
{
	const struct state *s = find_state(name);

	return s ? s->colour : "";
}

/* Append to BUF, which is CLI_TEXT_MAX long. */
static _printf_(2, 3) void append(char *buf, const char *format, ...)
{
	size_t used = strlen(buf);
	va_list args;

	va_start(args, format);
	vsnprintf(buf + used, CLI_TEXT_MAX - used, format, args);
	va_end(args);
}

static void append_retry(char *buf, struct json_object *retry, uint64_t age_usec)
{
	uint64_t attempts = member_u64(retry, "attempts");
	uint64_t next = usec_sub(member_u64(retry, "next_usec"), age_usec);
	char error[CLI_TEXT_MAX], time[FORMAT_MAX];

	if (*member_text(error, retry, "last_error"))
		append(buf, ": %s", error);
	if (!attempts)
		return;
	append(buf, " (attempt %llu", (unsigned long long)attempts);
	if (next)
		append(buf, ", next in %s", format_usec(time, next));
	append(buf, ")");
}

char *device_trouble(char buf[static CLI_TEXT_MAX], struct json_object *device,
		     uint64_t age_usec)
{
	char state[CLI_TEXT_MAX], warnings[CLI_TEXT_MAX];
	const struct state *s = find_state(member_text(state, device, "state"));

	buf[0] = '\0';
	member_list(warnings, device, "warnings", "; ");
	if (s && s->trouble) {
		append(buf, "%s", s->trouble);
		append_retry(buf, member(device, "retry"), age_usec);
		if (*warnings)
			append(buf, strchr(buf, ':') ? "; " : ": ");
	}
	append(buf, "%s", warnings);
	return buf;
}

enum { DEVICE, NAME, STATE, SIZE, OUTAGES, DONE, IN_FLIGHT, SERVER, N_CELLS };

static const struct table_column narrow_columns[] = {
	{ "DEVICE" }, { "NAME", .shrink = 8 }, { "STATE", .colour = state_colour },
	{ "SIZE", .right = true }, { "OUTAGES", .right = true },
	{ "SERVER", .shrink = 12 },
};

static const struct table_column wide_columns[] = {
	{ "DEVICE" }, { "NAME", .shrink = 8 }, { "STATE", .colour = state_colour },
	{ "SIZE", .right = true }, { "OUTAGES", .right = true },
	{ "DONE", .right = true }, { "IN FLIGHT", .right = true },
	{ "SERVER", .shrink = 12 },
};

static void add_device(struct table *t, struct json_object *d, bool wide, uint64_t age_usec)
{
	char device[CLI_TEXT_MAX], name[CLI_TEXT_MAX], state[CLI_TEXT_MAX];
	char server[CLI_TEXT_MAX], note[CLI_TEXT_MAX];
	char size[FORMAT_MAX], done[FORMAT_MAX], outages[24], in_flight[24];
	struct json_object *io = member(d, "io");
	const char *cells[N_CELLS] = {
		member_text(device, d, "device"), member_text(name, d, "name"),
		member_text(state, d, "state"), format_size(size, member_u64(d, "size")),
		outages, format_size(done, member_u64(io, "bytes")), in_flight, server,
	};

	if (!*device)
		cells[DEVICE] = "-";
	if (!*member_text(server, d, "uri"))
		member_text(server, d, "peer");
	snprintf(outages, sizeof(outages), "%llu",
		 (unsigned long long)member_u64(member(d, "outages"), "count"));
	snprintf(in_flight, sizeof(in_flight), "%llu",
		 (unsigned long long)member_u64(io, "in_flight"));
	if (!wide)
		cells[DONE] = cells[SERVER];
	table_add(t, cells, device_trouble(note, d, age_usec));
}

void show_devices(FILE *out, struct json_object *devices, unsigned width, bool colour,
		  uint64_t age_usec)
{
	bool wide = width >= WIDE;
	struct table *t = wide ? table_new(wide_columns, ARRAY_SIZE(wide_columns)) :
		table_new(narrow_columns, ARRAY_SIZE(narrow_columns));

	for (size_t i = 0; i < json_object_array_length(devices); i++)
		add_device(t, json_object_array_get_idx(devices, i), wide, age_usec);
	table_print(t, out, width, colour);
	table_free(t);
}
