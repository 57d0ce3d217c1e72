/* TLS in the daemon, as far as it needs no server. */
#include <string.h>

#include <nbdd.h>
#include "daemon/tls_image.h"
#include "daemon/tls_watch.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define LIMIT UINT64_C(1000000)

TEST(a_key_is_looked_at_twice_before_its_limit_at_any_pace)
{
	static const uint64_t per_second[] = { 1, 100, 10000, 400000 };

	for (size_t i = 0; i < ARRAY_SIZE(per_second); i++) {
		uint64_t pause, time = 0, records = 0, looks = 0;

		while (records < LIMIT) {
			pause = tls_watch_pause(records, LIMIT, per_second[i], USEC_PER_SEC);
			CHECK(pause >= USEC_PER_SEC / 4 && pause <= USEC_PER_MINUTE);
			time += pause;
			records = time * per_second[i] / USEC_PER_SEC;
			looks++;
		}
		CHECK(looks >= 2);
		/* A quarter of a second, or a minute of very little, is how late it may be. */
		CHECK(records <= LIMIT + MAX(per_second[i] / 4, UINT64_C(60)));
	}
}

TEST(a_pause_has_bounds_whatever_the_numbers_are)
{
	CHECK_INT(tls_watch_pause(0, LIMIT, 0, 0), USEC_PER_MINUTE);
	CHECK_INT(tls_watch_pause(LIMIT, LIMIT, 1, 1), USEC_PER_SEC / 4);
	CHECK_INT(tls_watch_pause(UINT64_MAX, LIMIT, 1, 1), USEC_PER_SEC / 4);
	CHECK_INT(tls_watch_pause(0, UINT64_MAX, 1, UINT64_MAX), USEC_PER_MINUTE);
	CHECK_INT(tls_watch_pause(0, LIMIT, UINT64_MAX, 1), USEC_PER_SEC / 4);
}

TEST(days_are_whole_and_negative_from_the_moment_of_the_end)
{
	int64_t now = (int64_t)(clock_usec(CLOCK_REALTIME) / USEC_PER_SEC);

	CHECK_INT(tls_days_left(now + 86400 + 10), 1);
	CHECK_INT(tls_days_left(now + 86400 - 10), 0);
	CHECK_INT(tls_days_left(now - 10), -1);
	CHECK_INT(tls_days_left(now - 86400 - 10), -2);
}

static struct tls_image *image(void)
{
	struct tls_image *i = calloc(1, TLS_IMAGE_MAX);

	CHECK(i);
	i->size[TLS_WHERE] = 3;
	i->size[TLS_CA] = 5;
	memcpy(i->bytes, "/a\0-----", 8);
	return i;
}

TEST(an_image_has_its_parts_one_behind_the_other)
{
	struct tls_image *i = image();
	struct nbdd_tls_credentials c;

	CHECK_INT(tls_image_size(i), sizeof(*i) + 8);
	tls_image_get(i, &c);
	CHECK_STR(c.where, "/a");
	CHECK_INT(c.ca.size, 5);
	CHECK(memcmp(c.ca.data, "-----", 5) == 0);
	CHECK(!c.username && !c.key.data && !c.psk.data && !c.crl.data);
	free(i);
}

TEST(an_image_that_is_too_long_or_has_text_without_an_end_is_none)
{
	struct tls_image *i = image();

	i->size[TLS_KEY] = TLS_IMAGE_MAX;
	CHECK_INT(tls_image_size(i), 0);
	i->size[TLS_KEY] = UINT32_MAX;
	i->size[TLS_PSK] = UINT32_MAX;
	CHECK_INT(tls_image_size(i), 0);
	i->size[TLS_KEY] = i->size[TLS_PSK] = 0;
	i->size[TLS_WHERE] = 2;
	CHECK_INT(tls_image_size(i), 0);
	free(i);
}
