/* Everything that is known of one device. */
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "daemon/cli/cli.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

#define LABEL_WIDTH 11

struct detail {
	FILE *out;
	struct json_object *device;
	bool colour;
	uint64_t age_usec;
};

static _printf_(3, 4) void line(const struct detail *d, const char *label,
				const char *format, ...)
{
	va_list args;

	fprintf(d->out, "%*s%s", LABEL_WIDTH, label, *label ? ": " : "  ");
	va_start(args, format);
	vfprintf(d->out, format, args);
	va_end(args);
	fputc('\n', d->out);
}

/* A point of CLOCK_REALTIME as local date and time, and how long ago it was. */
static char *point_in_time(char buf[static 96], uint64_t usec)
{
	time_t t = (time_t)(usec / USEC_PER_SEC);
	char date[32] = "", ago[FORMAT_MAX];
	struct tm tm;

	if (localtime_r(&t, &tm))
		strftime(date, sizeof(date), "%F %T", &tm);
	snprintf(buf, 96, "%s, %s ago", date,
		 format_usec(ago, usec_sub(clock_usec(CLOCK_REALTIME), usec)));
	return buf;
}

static void show_head(const struct detail *d)
{
	char device[CLI_TEXT_MAX], name[CLI_TEXT_MAX], state[CLI_TEXT_MAX];
	char trouble[CLI_TEXT_MAX];
	const char *paint;

	member_text(device, d->device, "device");
	member_text(name, d->device, "name");
	member_text(state, d->device, "state");
	fprintf(d->out, "%s%s%s\n", device, *device ? " " : "", name);
	paint = d->colour ? state_colour(state) : "";
	line(d, "State", "%s%s%s", paint, state, *paint ? "\033[m" : "");
	if (*device_trouble(trouble, d->device, d->age_usec))
		line(d, "", "%s", trouble);
}

static void show_export(const struct detail *d)
{
	uint64_t size = member_u64(d->device, "size");
	uint64_t block = member_u64(d->device, "block_size");
	char text[CLI_TEXT_MAX], phase[CLI_TEXT_MAX], human[FORMAT_MAX];

	if (*member_text(text, d->device, "uri"))
		line(d, "URI", "%s", text);
	if (*member_text(text, d->device, "peer"))
		line(d, "Server", "%s", text);
	if (member(d->device, "move"))
		line(d, "Moving", "to %s, %s", member_text(text, member(d->device, "move"),
							   "uri"),
		     member_text(phase, member(d->device, "move"), "phase"));
	if (size)
		line(d, "Size", "%s (%llu bytes)", format_size(human, size),
		     (unsigned long long)size);
	if (block)
		line(d, "Block size", "%llu bytes", (unsigned long long)block);
	line(d, "Access", "%s", member_bool(d->device, "read_only") ? "read-only" :
	     "read and write");
	if (*member_list(text, d->device, "flags", " "))
		line(d, "Flags", "%s", text);
}

static void show_certificate(const struct detail *d, const char *label,
			     struct json_object *certificate)
{
	int64_t days = json_object_get_int64(member(certificate, "days_left"));
	time_t t = (time_t)(member_u64(certificate, "expires") / USEC_PER_SEC);
	char names[CLI_TEXT_MAX], date[32] = "";
	struct tm tm;

	if (!certificate)
		return;
	if (localtime_r(&t, &tm))
		strftime(date, sizeof(date), "%F", &tm);
	member_text(names, certificate, "names");
	line(d, label, "%s%suntil %s, %lld days left", names, *names ? ", " : "", date,
	     (long long)days);
}

static void show_tls(const struct detail *d)
{
	struct json_object *tls = member(d->device, "tls");
	char version[CLI_TEXT_MAX], cipher[CLI_TEXT_MAX], why[CLI_TEXT_MAX];

	if (!tls) {
		line(d, "TLS", "off");
		return;
	}
	line(d, "TLS", "%s, %s, %s", member_text(version, tls, "version"),
	     member_text(cipher, tls, "cipher"), member_bool(tls, "in_kernel") ?
	     "encrypted by the kernel" : "encrypted by a relay process");
	if (*member_text(why, tls, "why_not_in_kernel"))
		line(d, "", "not by the kernel: %s", why);
	show_certificate(d, "Certificate", member(tls, "certificate"));
	show_certificate(d, "Our own", member(tls, "own_certificate"));
}

static void show_connections(const struct detail *d)
{
	struct json_object *list = member(d->device, "connections");
	size_t n = json_object_is_type(list, json_type_array) ?
		json_object_array_length(list) : 0;

	for (size_t i = 0; i < n; i++) {
		struct json_object *c = json_object_array_get_idx(list, i);
		uint64_t rtt = member_u64(c, "rtt_usec"), lost = member_u64(c, "retransmits");
		uint64_t since = member_u64(c, "since"), relay = member_u64(c, "relay");
		char state[CLI_TEXT_MAX], peer[CLI_TEXT_MAX], when[96], time[FORMAT_MAX];

		line(d, i ? "" : "Connections", "%s, %s%s%s", member_text(peer, c, "peer"),
		     member_text(state, c, "state"), since ? " since " : "",
		     since ? point_in_time(when, since) : "");
		if (rtt || lost)
			line(d, "", "round trip %s, %llu retransmits",
			     format_usec(time, rtt), (unsigned long long)lost);
		if (relay)
			line(d, "", "relayed by process %llu", (unsigned long long)relay);
	}
}

static void show_outages(const struct detail *d)
{
	struct json_object *outages = member(d->device, "outages");
	struct json_object *last = member(outages, "last");
	uint64_t count = member_u64(outages, "count");
	char time[FORMAT_MAX], reason[CLI_TEXT_MAX], when[96];

	if (!count) {
		line(d, "Outages", "none");
		return;
	}
	line(d, "Outages", "%llu, %s in all", (unsigned long long)count,
	     format_usec(time, member_u64(outages, "total_usec")));
	if (last)
		line(d, "", "the last at %s, for %s: %s",
		     point_in_time(when, member_u64(last, "start")),
		     format_usec(time, member_u64(last, "duration_usec")),
		     member_text(reason, last, "reason"));
}

static void show_io(const struct detail *d)
{
	struct json_object *io = member(d->device, "io");
	char human[FORMAT_MAX];

	line(d, "I/O", "%llu reads, %llu writes, %s; %llu in flight",
	     (unsigned long long)member_u64(io, "reads"),
	     (unsigned long long)member_u64(io, "writes"),
	     format_size(human, member_u64(io, "bytes")),
	     (unsigned long long)member_u64(io, "in_flight"));
}

void show_device(FILE *out, struct json_object *device, bool colour, uint64_t age_usec)
{
	const struct detail d = { out, device, colour, age_usec };

	show_head(&d);
	show_export(&d);
	show_tls(&d);
	show_connections(&d);
	show_outages(&d);
	show_io(&d);
}
