#include "lib/util/units.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/util/clock.h"

/* The number that TEXT starts with; *END is what follows it. */
static int parse_prefix(const char *text, int base, const char **end, uint64_t *ret)
{
	unsigned long long v;
	char *e;

	if (!isxdigit((unsigned char)*text) || (base == 10 && !isdigit((unsigned char)*text)))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &e, base);
	if (errno == ERANGE)
		return -ERANGE;
	*end = e;
	*ret = v;
	return 0;
}

int parse_u64(const char *text, uint64_t *ret)
{
	/* strtoull would take a second 0x. */
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') &&
		   !(text[2] == '0' && (text[3] == 'x' || text[3] == 'X'));
	const char *end;
	uint64_t v;
	int r;

	r = parse_prefix(hex ? text + 2 : text, hex ? 16 : 10, &end, &v);
	if (r < 0)
		return r;
	if (*end)
		return -EINVAL;
	*ret = v;
	return 0;
}

int parse_u32(const char *text, uint32_t *ret)
{
	uint64_t v;
	int r = parse_u64(text, &v);

	if (r < 0)
		return r;
	if (v > UINT32_MAX)
		return -ERANGE;
	*ret = (uint32_t)v;
	return 0;
}

static const char size_units[] = "KMGTPE";

int parse_size(const char *text, uint64_t *ret)
{
	const char *end, *unit;
	unsigned shift = 0;
	uint64_t v;
	int r;

	r = parse_prefix(text, 10, &end, &v);
	if (r < 0)
		return r;
	if (*end && (unit = strchr(size_units, toupper((unsigned char)*end)))) {
		shift = 10 * (unsigned)(unit - size_units + 1);
		end++;
		if (strcasecmp(end, "ib") == 0)
			end += 2;
	}
	if (strcasecmp(end, "b") == 0)
		end++;
	if (*end)
		return -EINVAL;
	if (shift && v >> (64 - shift))
		return -ERANGE;
	*ret = v << shift;
	return 0;
}

static const struct time_unit {
	const char *name;
	uint64_t usec;
} time_units[] = {
	{ "us", 1 }, { "usec", 1 },
	{ "ms", USEC_PER_MSEC }, { "msec", USEC_PER_MSEC },
	{ "", USEC_PER_SEC }, { "s", USEC_PER_SEC }, { "sec", USEC_PER_SEC },
	{ "second", USEC_PER_SEC }, { "seconds", USEC_PER_SEC },
	{ "m", USEC_PER_MINUTE }, { "min", USEC_PER_MINUTE },
	{ "minute", USEC_PER_MINUTE }, { "minutes", USEC_PER_MINUTE },
	{ "h", 60 * USEC_PER_MINUTE }, { "hour", 60 * USEC_PER_MINUTE },
	{ "hours", 60 * USEC_PER_MINUTE },
	{ "d", 24 * 60 * USEC_PER_MINUTE }, { "day", 24 * 60 * USEC_PER_MINUTE },
	{ "days", 24 * 60 * USEC_PER_MINUTE },
};

static const struct time_unit *find_time_unit(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(time_units); i++)
		if (strlen(time_units[i].name) == len &&
		    strncmp(time_units[i].name, name, len) == 0)
			return &time_units[i];
	return NULL;
}

/* The digits after a decimal point, as a part of UNIT. */
static uint64_t parse_fraction(const char **text, uint64_t unit)
{
	uint64_t sum = 0;

	for (; isdigit((unsigned char)**text); (*text)++) {
		unit /= 10;
		sum += unit * (uint64_t)(**text - '0');
	}
	return sum;
}

/* One `NUMBER[.FRACTION][UNIT]` at *TEXT. */
static int parse_time_term(const char **text, uint64_t *ret)
{
	const char *digits = NULL, *name;
	const struct time_unit *unit;
	uint64_t v, usec;
	int r;

	r = parse_prefix(*text, 10, &name, &v);
	if (r < 0)
		return r;
	if (*name == '.') {
		digits = ++name;
		if (!isdigit((unsigned char)*name))
			return -EINVAL;
		name += strspn(name, "0123456789");
	}
	while (*name == ' ')
		name++;
	*text = name;
	while (isalpha((unsigned char)**text))
		(*text)++;
	unit = find_time_unit(name, (size_t)(*text - name));
	if (!unit)
		return -EINVAL;
	if (__builtin_mul_overflow(v, unit->usec, &usec))
		return -ERANGE;
	if (digits && __builtin_add_overflow(usec, parse_fraction(&digits, unit->usec), &usec))
		return -ERANGE;
	*ret = usec;
	return 0;
}

int parse_usec(const char *text, uint64_t *ret)
{
	uint64_t sum = 0, term;
	int r;

	if (strcmp(text, "infinity") == 0) {
		*ret = USEC_INFINITY;
		return 0;
	}
	do {
		r = parse_time_term(&text, &term);
		if (r < 0)
			return r;
		if (__builtin_add_overflow(sum, term, &sum) || sum == USEC_INFINITY)
			return -ERANGE;
		while (*text == ' ')
			text++;
	} while (*text);
	*ret = sum;
	return 0;
}

int parse_bool(const char *text, bool *ret)
{
	static const char *const words[][4] = {
		{ "0", "no", "false", "off" }, { "1", "yes", "true", "on" },
	};

	for (unsigned value = 0; value < 2; value++)
		for (unsigned i = 0; i < 4; i++)
			if (strcasecmp(text, words[value][i]) == 0) {
				*ret = value;
				return 0;
			}
	return -EINVAL;
}

char *format_size(char buf[static FORMAT_MAX], uint64_t bytes)
{
	int unit = -1;
	uint64_t whole = bytes, rest = 0;

	for (; whole >= 1024 && unit < 5; unit++) {
		rest = whole % 1024;
		whole /= 1024;
	}
	if (unit < 0)
		snprintf(buf, FORMAT_MAX, "%u B", (unsigned)bytes);
	else if (rest)
		snprintf(buf, FORMAT_MAX, "%u.%u %ciB", (unsigned)whole,
			 (unsigned)(rest * 10 / 1024), size_units[unit]);
	else
		snprintf(buf, FORMAT_MAX, "%u %ciB", (unsigned)whole, size_units[unit]);
	return buf;
}

char *format_usec(char buf[static FORMAT_MAX], uint64_t usec)
{
	uint64_t sec = usec / USEC_PER_SEC, min = sec / 60, hours = min / 60;

	if (usec == USEC_INFINITY)
		snprintf(buf, FORMAT_MAX, "infinity");
	else if (usec < USEC_PER_MSEC)
		snprintf(buf, FORMAT_MAX, "%uus", (unsigned)usec);
	else if (sec == 0)
		snprintf(buf, FORMAT_MAX, "%ums", (unsigned)(usec / USEC_PER_MSEC));
	else if (min == 0)
		snprintf(buf, FORMAT_MAX, "%u.%us", (unsigned)sec,
			 (unsigned)(usec % USEC_PER_SEC / 100000));
	else if (hours == 0)
		snprintf(buf, FORMAT_MAX, "%umin %us", (unsigned)min, (unsigned)(sec % 60));
	else if (hours < 48)
		snprintf(buf, FORMAT_MAX, "%uh %umin", (unsigned)hours, (unsigned)(min % 60));
	else
		snprintf(buf, FORMAT_MAX, "%llud %uh", (unsigned long long)(hours / 24),
			 (unsigned)(hours % 24));
	return buf;
}
