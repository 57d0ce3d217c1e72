/* The screen of `status --watch`, without a terminal. */
#include <locale.h>
#include <string.h>

#include "daemon/cli/screen.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define NOW UINT64_C(1700000000000000)
#define KIB 1024.0

static const char *spark(const double *values, unsigned n, uint64_t seconds, unsigned width,
			 bool sums)
{
	static char buf[SPARK_MAX * 3 + 1];

	screen_spark(buf, values, n, seconds, width, sums);
	return buf;
}

TEST(bars_show_the_newest_last_and_the_highest_full)
{
	double values[SCREEN_SAMPLES] = { 0, 1, 4, 8, -1, 8 };

	CHECK_STR(spark(values, 6, 6, 120, false) + 120 - 6, "▁▂▅█ █");
	CHECK_STR(spark(values, 0, 0, 4, false), "    ");
	CHECK_STR(spark(values, 6, 6, 0, false), "");
	/* A little is not nothing. */
	values[0] = 1e9;
	CHECK_STR(spark(values, 4, 4, 120, false) + 116, "█▂▂▂");
}

TEST(bars_gather_seconds_and_stay_as_they_are_while_they_move)
{
	double values[SCREEN_SAMPLES] = {};

	values[10] = 5;
	values[25] = 2;
	values[29] = 1;
	/* Cells of 20 s: the first has its highest value, or the sum. */
	CHECK_STR(spark(values, 40, 40, 6, false), "    █▄");
	CHECK_STR(spark(values, 40, 40, 6, true), "    █▅");
	for (uint64_t s = 41; s <= 60; s++)
		CHECK_STR(spark(values, (unsigned)s, s, 6, true) + 3, "█▅▁");
	/* A ring that has gone round. */
	CHECK_INT(strlen(spark(values, SCREEN_SAMPLES, 100000, 120, false)), 3 * 120);
}

static struct json_object *device(const char *name, const char *state, unsigned outages,
				  uint64_t last)
{
	char text[1024];

	snprintf(text, sizeof(text), "{\"name\":\"%s\",\"device\":\"/dev/nbd%c\",\"index\":1,"
		 "\"state\":\"%s\",\"outages\":{\"count\":%u,\"last\":{\"start\":%llu,"
		 "\"duration_usec\":0}},\"retry\":{\"attempts\":3,\"last_error\":\"refused\"},"
		 "\"warnings\":[]}", name, name[0], state, outages, (unsigned long long)last);
	return json_tokener_parse(text);
}

static struct json_object *list(struct json_object *a, struct json_object *b,
				struct json_object *c, struct json_object *d)
{
	struct json_object *all = json_object_new_array(), *one[] = { a, b, c, d };

	for (size_t i = 0; i < 4 && one[i]; i++)
		json_object_array_add(all, one[i]);
	return all;
}

static void update(struct screen *s, struct json_object *devices)
{
	screen_update(s, devices, NOW);
	json_object_put(devices);
}

static void second(struct screen *s, uint64_t i, uint64_t latency)
{
	struct screen_counters c[8];

	for (size_t k = 0; k < s->n_rows; k++)
		c[k] = (struct screen_counters){ true, i << 20, i * 10,
			i * 10 * (s->rows[k]->name[0] == 'z' ? 2 * latency : latency) };
	screen_sample(s, c, USEC_PER_SEC);
}

static const char *order(const struct screen *s)
{
	static char text[64];

	for (size_t i = 0; i < s->n_rows; i++)
		text[i] = s->rows[i]->name[0];
	text[s->n_rows] = '\0';
	return text;
}

TEST(devices_are_sorted_by_trouble)
{
	struct screen s = {};

	update(&s, list(device("a", "connected", 0, 0), device("b", "reconnecting", 1, NOW),
			device("c", "connected", 7, NOW - 20 * USEC_PER_MINUTE),
			device("d", "failing", 1, NOW)));
	CHECK_STR(order(&s), "dbac");
	update(&s, list(device("a", "connected", 0, 0), device("b", "connected", 1, NOW),
			device("c", "connected", 9, NOW - USEC_PER_MINUTE),
			device("d", "degraded", 1, 0)));
	CHECK_STR(order(&s), "dbca");
	update(&s, list(device("y", "connected", 0, 0), device("z", "connected", 0, 0), NULL,
			NULL));
	CHECK_STR(order(&s), "yz");
	for (uint64_t i = 1; i < 4; i++)
		second(&s, i, 1000);
	CHECK_STR(order(&s), "zy");
	CHECK_INT((long long)s.rows[0]->samples[2].latency_usec, 2000);
	CHECK_INT((long long)s.rows[0]->samples[2].rate, 1 << 20);
	update(&s, list(device("z", "connected", 2, 0), NULL, NULL, NULL));
	second(&s, 1, 1000);		/* counters that go back: another device */
	CHECK_INT((long long)s.rows[0]->samples[3].rate, -1);
	CHECK_INT((long long)s.rows[0]->samples[3].outages, 2);
	screen_free(&s);
}

/* Columns of LINE, whose characters are all one wide. */
static unsigned width_of(const char *line, size_t len)
{
	unsigned n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)line[i] & 0xc0) != 0x80;
	return n;
}

static char *drawn(const struct screen *s, unsigned columns, unsigned lines, bool colour)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	screen_draw(out, s, columns, lines, colour, 0);
	fclose(out);
	return text;
}

TEST(a_screen_fits_into_any_window_and_says_how_many_have_no_place)
{
	static const unsigned columns[] = { 64, 80, 81, 119, 120, 200, 500, 1000 };
	struct screen s = {};
	char *text;

	setlocale(LC_CTYPE, "C.UTF-8");
	update(&s, list(device("a-name-that-is-much-longer-than-its-place", "connected", 0, 0),
			device("b", "reconnecting", 1, NOW), device("c", "connected", 7, NOW),
			device("d", "failing", 1, NOW)));
	for (uint64_t i = 1; i < 300; i++)
		second(&s, i, 1500);
	for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
		text = drawn(&s, columns[i], 24, false);
		for (char *p = text; *p; p += strcspn(p, "\n") + 1)
			CHECK(width_of(p, strcspn(p, "\n")) <= columns[i]);
		CHECK(!strchr(text, '\033') && strstr(text, "1 MiB/s") && strstr(text, "1.5 ms"));
		CHECK(strstr(text, "4 devices, 2 not connected"));
		CHECK(strstr(text, "the server is away and I/O waits: refused"));
		free(text);
	}
	for (unsigned lines = 3; lines < 10; lines++) {
		unsigned n = 0;

		text = drawn(&s, 80, lines, true);
		for (char *p = text; (p = strchr(p, '\n')); p++)
			n++;
		CHECK(n <= lines);
		CHECK((lines < 8) == !!strstr(text, " more\n"));
		free(text);
	}
	text = drawn(&s, 20, 24, false);	/* no bars */
	CHECK(!strstr(text, "▁"));
	free(text);
	screen_free(&s);
}
