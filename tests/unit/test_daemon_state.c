/* The state of a device as text. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/state.h"
#include "tests/unit/unit.h"

#define OBJECT \
	"{\"export\":{\"size\":8192,\"flags\":1,\"block-minimum\":0,\"payload-maximum\":0}," \
	"\"outages\":{\"count\":1,\"total-usec\":2,\"began-usec\":3,\"last-start-usec\":4," \
	"\"last-usec\":5,\"reason\":\"r\"},\"keys\":{\"dead-timeout\":\"5s\"},\"target\":{" \
	"\"servers\":[{\"host\":\"h\",\"label\":\"h:1\",\"addresses\":[" \
	"\"02002a39c00002010000000000000000\"]}],\"uri-tls\":{\"no-verify\":false}," \
	"\"export\":\"e\",\"tls\":false,\"current\":0},\"links\":[{\"phase\":\"alive\"," \
	"\"inode\":7,\"peer\":\"p\",\"since-usec\":6,\"tls\":{\"version\":0,\"in-kernel\":false," \
	"\"cipher\":\"\",\"why-not\":\"\",\"names\":\"\",\"expires\":0,\"own-expires\":0}," \
	"\"local\":\"02002a39c00002010000000000000000\"," \
	"\"remote\":\"02002a39c00002010000000000000000\"}],\"name\":\"n\",\"identifier\":\"i\"," \
	"\"boot\":\"b\",\"phase\":\"attached\",\"index\":3,\"index-fixed\":true," \
	"\"automatic\":false,\"forced\":false,\"size\":8192,\"grow-to\":0," \
	"\"block-size\":512,\"requeue-usec\":300000,\"warning\":\"w\"}"

TEST(state_is_the_same_after_it_was_written_and_read)
{
	struct state a = {}, b = {};
	char error[STATE_ERROR_MAX] = "", *text;
	size_t len;

	CHECK_INT(state_parse_object(OBJECT, strlen(OBJECT), &a, error), 0);
	CHECK_STR(error, "");
	CHECK_STR(a.name, "n");
	CHECK_INT(a.keys.dead_timeout_usec, 5000000);
	CHECK(device_keys_given(&a.keys, "dead-timeout"));
	CHECK(!device_keys_given(&a.keys, "timeout"));
	CHECK_INT(a.links[0].sock.inode, 7);
	CHECK_INT(a.links[0].sock.peer.ss_family, AF_INET);
	CHECK_INT(a.outages.began_usec, 3);
	CHECK_INT(state_format(&a, &text, &len), 0);
	CHECK_INT(state_parse(text, len, &b, error), 0);
	CHECK_INT(b.phase, PHASE_ATTACHED);
	CHECK_STR(b.target.servers[0].label, "h:1");
	CHECK_INT(memcmp(&a.links, &b.links, sizeof(a.links)), 0);
	text[len / 2] ^= 1;
	state_deinit(&b);
	b = (struct state){};
	CHECK_INT(state_parse(text, len, &b, error), -EINVAL);
	CHECK_STR(error, "its checksum is wrong");
	state_deinit(&a);
	state_deinit(&b);
	free(text);
}

/* As an nbdd wrote it before there were relays, and one that knows of them. */
TEST(state_tells_of_a_links_relay_if_it_can)
{
	static const char *const members[] = {
		"\"relay-pid\":4194304,", "\"relay-pid\":4194305,",
		"\"relay-pid\":-1,", "\"relay-pid\":\"1\",",
	};
	char text[sizeof(OBJECT) + 64], error[STATE_ERROR_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		const char *rest = strstr(OBJECT, "\"inode\"");
		struct state s = {};

		snprintf(text, sizeof(text), "%.*s%s%s", (int)(rest - OBJECT), OBJECT, members[i],
			 rest);
		CHECK_INT(state_parse_object(text, strlen(text), &s, error), i ? -EINVAL : 0);
		if (i == 0)
			CHECK_INT(s.links[0].relay_pid, 1 << 22);
		state_deinit(&s);
	}
}

/* As a later nbdd writes it; what it needs for safety it writes as another version. */
TEST(state_keys_that_are_not_known_are_passed_over)
{
	static const struct {
		const char *more;
		unsigned n;
		int r;
	} keys[] = {
		{ "", 0, 0 },
		{ ",\"from-\\u0007later\":\"x\"", 1, 0 },
		{ ",\"later\":{\"not\":\"a text\"},\"and\":1", 2, 0 },
		{ ",\"timeout\":\"much\"", 0, -EINVAL },
		{ ",\"timeout\":1", 0, -EINVAL },
		{ ",\"later\":\"x\",\"timeout\":\"much\"", 1, -EINVAL },
	};
	const char *rest = strstr(OBJECT, "},\"target\"");
	char text[sizeof(OBJECT) + 64], error[STATE_ERROR_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		struct state s = {};

		snprintf(text, sizeof(text), "%.*s%s%s", (int)(rest - OBJECT), OBJECT,
			 keys[i].more, rest);
		CHECK_INT(state_parse_object(text, strlen(text), &s, error), keys[i].r);
		CHECK_INT(s.n_unknown, keys[i].n);
		if (i == 1)
			CHECK_STR(s.unknown, "from-\\x07later");
		CHECK_INT(s.keys.dead_timeout_usec, 5000000);
		state_deinit(&s);
	}
}

/* As an nbdd wrote it that did not tell of it, and one that does. */
TEST(state_tells_why_the_kernels_tls_was_given_up_if_it_can)
{
	char text[sizeof(OBJECT) + 2 * TLS_WHY_MAX], error[STATE_ERROR_MAX], why[TLS_WHY_MAX + 1];
	const char *rest = strstr(OBJECT, "\"warning\"");

	memset(why, 'w', TLS_WHY_MAX);
	for (int len = TLS_WHY_MAX - 1; len <= TLS_WHY_MAX; len++) {
		struct state s = {};

		why[len] = '\0';
		snprintf(text, sizeof(text), "%.*s\"kernel-tls-given-up\":\"%s\",%s",
			 (int)(rest - OBJECT), OBJECT, why, rest);
		CHECK_INT(state_parse_object(text, strlen(text), &s, error),
			  len < TLS_WHY_MAX ? 0 : -EINVAL);
		CHECK_STR(s.distrust, len < TLS_WHY_MAX ? why : "");
		state_deinit(&s);
		why[len] = 'w';
	}
}

TEST(state_of_another_version_is_told_apart_from_a_broken_one)
{
	static const struct {
		const char *text;
		int r;
	} texts[] = {
		{ "nbdd-state 2 2 00\n{}", -EPROTONOSUPPORT },
		{ "nbdd-state 0 2 00\n{}", -EPROTONOSUPPORT },
		{ "nbdd-state 1 2 00\n{}", -EINVAL },
		{ "nbdd-state 1 9 00\n{}", -EINVAL },
		{ "nbdd-state 1", -EINVAL },
		{ "", -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct state s = {};
		char error[STATE_ERROR_MAX] = "";

		CHECK_INT(state_parse(texts[i].text, strlen(texts[i].text), &s, error),
			  texts[i].r);
		CHECK(error[0]);
		state_deinit(&s);
	}
}
