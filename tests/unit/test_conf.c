#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/conf.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

/* Values that differ from the default, in the form that device_keys_get gives. */
static const struct {
	const char *key, *values[4];
} samples[] = {
	{ "uri", { "nbd://s/e", "nbds+unix:///a%20b?socket=/run/x&tls-certificates=/c" } },
	{ "addresses", { "a", "a,b:1,[::1]:2,::1,/run/x" } },
	{ "port", { "1", "65535" } },
	{ "export", { "", "x", "caf\xc3\xa9 \\ #;=," } },
	{ "tls", { "allow", "require" } },
	{ "tls-certificates", { "/etc/nbd" } },
	{ "tls-ca-file", { "/etc/ca.crt" } },
	{ "tls-cert-file", { "/etc/my.crt" } },
	{ "tls-key-file", { "/etc/my.key" } },
	{ "tls-psk-file", { "/etc/psk" } },
	{ "tls-username", { "me" } },
	{ "tls-hostname", { "server.example.com" } },
	{ "tls-priority", { "NORMAL:-VERS-ALL:+VERS-TLS1.3" } },
	{ "kernel-tls", { "require", "off" } },
	{ "connections", { "auto", "16" } },
	{ "block-size", { "512", "4096" } },
	{ "size", { "512", "1099511627776" } },
	{ "preinit", { "yes" } },
	{ "read-only", { "yes" } },
	{ "timeout", { "1s", "90s", "30d" } },
	{ "requeue-interval", { "0", "100ms", "1h" } },
	{ "dead-timeout", { "0", "5s", "3650d" } },
	{ "reconnect-delay", { "10ms", "1250ms", "10500us" } },
	{ "reconnect-delay-max", { "10ms", "1min" } },
	{ "connect-timeout", { "100ms", "1h" } },
	{ "keepalive", { "0", "1s" } },
	{ "keepalive-timeout", { "0", "1500ms" } },
	{ "identifier", { "x" } },
	{ "size-change", { "grow" } },
	{ "swap", { "yes" } },
	{ "on-event", { "/usr/local/bin/told" } },
	{ "on-event-user", { "root" } },
};

static void set(struct device_keys *k, const char *key, const char *text)
{
	char error[CONF_ERROR_MAX] = "";

	if (device_keys_set(k, key, text, error) != 0)
		FAIL("%s = %s: %s", key, text ? text : "(null)", error);
}

TEST(samples_are_of_every_key)
{
	CHECK_INT(ARRAY_SIZE(samples), n_conf_keys);
	for (size_t i = 0; i < n_conf_keys; i++)
		CHECK_STR(samples[i].key, conf_keys[i].name);
}

TEST(what_get_gives_set_takes_for_an_equal_struct)
{
	for (size_t i = 0; i < n_conf_keys; i++)
		for (size_t j = 0; j < 4 && samples[i].values[j]; j++) {
			_cleanup_free_ char *text = NULL;
			struct device_keys a, b;

			device_keys_init(&a);
			device_keys_init(&b);
			set(&a, samples[i].key, samples[i].values[j]);
			CHECK(a.set == UINT64_C(1) << i);
			CHECK(!device_keys_equal(&a, &b));
			CHECK(!device_keys_equal(&b, &a));
			CHECK_INT(device_keys_get(&a, samples[i].key, &text), 0);
			CHECK_STR(text, samples[i].values[j]);
			set(&b, samples[i].key, text);
			CHECK(device_keys_equal(&a, &b));
			device_keys_deinit(&a);
			device_keys_deinit(&b);
		}
}

TEST(defaults_are_those_of_the_table_and_count_as_not_given)
{
	struct device_keys k;

	device_keys_init(&k);
	CHECK_INT(k.set, 0);
	for (size_t i = 0; i < n_conf_keys; i++) {
		_cleanup_free_ char *text = NULL;

		CHECK_INT(device_keys_get(&k, conf_keys[i].name, &text), 0);
		if (conf_keys[i].initial)
			CHECK_STR(text, conf_keys[i].initial);
		else
			CHECK(!text);
	}
	CHECK_INT(k.port, 10809);
	CHECK_INT(k.connections, 1);
	CHECK(k.dead_timeout_usec == USEC_INFINITY);
	CHECK_INT(k.timeout_usec, 0);
	CHECK_INT(k.requeue_interval_usec, 300 * USEC_PER_MSEC);
	device_keys_deinit(&k);
}

TEST(the_table_is_sound)
{
	CHECK(n_conf_keys <= 64);
	for (size_t i = 0; i < n_conf_keys; i++) {
		const struct conf_key *k = &conf_keys[i];
		char allowed[CONF_ALLOWED_MAX];

		CHECK(conf_key_find(k->name, NULL) == k);
		CHECK(k->value && k->text && k->text[strlen(k->text) - 1] == '.');
		CHECK(k->min <= k->max);
		CHECK((k->type == CONF_ENUM) == (k->words != NULL));
		CHECK((k->type == CONF_STRING || k->type == CONF_STRINGS) == !k->initial);
		CHECK(strlen(conf_key_allowed(k, allowed)) < CONF_ALLOWED_MAX - 1);
		for (size_t j = 0; j < i; j++)
			CHECK(conf_keys[j].offset != k->offset);
	}
}

static int try_number(const struct conf_key *key, uint64_t v)
{
	char text[32], error[CONF_ERROR_MAX];
	struct device_keys k;
	int r;

	snprintf(text, sizeof(text), "%" PRIu64 "%s", v, key->type == CONF_USEC ? "us" : "");
	device_keys_init(&k);
	r = device_keys_set(&k, key->name, text, error);
	device_keys_deinit(&k);
	return r;
}

TEST(numbers_are_taken_from_minimum_to_maximum)
{
	for (size_t i = 0; i < n_conf_keys; i++) {
		const struct conf_key *k = &conf_keys[i];

		if (k->type != CONF_U32 && k->type != CONF_AUTO_U32 && k->type != CONF_USEC &&
		    k->type != CONF_SIZE)
			continue;
		CHECK_INT(try_number(k, k->min), 0);
		CHECK_INT(try_number(k, k->max), 0);
		CHECK_INT(try_number(k, k->max + 1), -ERANGE);
		if (k->min > 1)
			CHECK_INT(try_number(k, k->min - 1), -ERANGE);
		CHECK_INT(try_number(k, 0), k->rules & CONF_ZERO ? 0 : -ERANGE);
	}
}

TEST(strings_are_taken_up_to_their_maximum)
{
	for (size_t i = 0; i < n_conf_keys; i++) {
		const struct conf_key *k = &conf_keys[i];
		char text[CONF_VALUE_MAX + 2] = "", error[CONF_ERROR_MAX];
		struct device_keys keys;

		if (k->type != CONF_STRING)
			continue;
		memset(text, '/', k->max);
		if (k->rules & CONF_URI)
			memcpy(text, "nbd:", 4);
		device_keys_init(&keys);
		set(&keys, k->name, text);
		text[k->max] = '/';
		CHECK_INT(device_keys_set(&keys, k->name, text, error), -EINVAL);
		device_keys_deinit(&keys);
	}
}

TEST(a_refused_value_changes_nothing)
{
	static const char *const bad[][2] = {
		{ "uri", "x" }, { "addresses", "a b" }, { "port", "0" }, { "tls", "x" },
		{ "export", "\n" }, { "connections", "17" }, { "read-only", "x" },
		{ "timeout", "x" }, { "block-size", "513" }, { "nosuchkey", "1" },
		{ "port", NULL }, { "sdp", NULL }, { "keyfile", "x" },
	};
	char error[CONF_ERROR_MAX];
	struct device_keys k, before;

	device_keys_init(&k);
	for (size_t i = 0; i < n_conf_keys; i++)
		set(&k, samples[i].key, samples[i].values[0]);
	k.set = 0;
	CHECK_INT(device_keys_copy(&before, &k), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		*error = '\0';
		CHECK(device_keys_set(&k, bad[i][0], bad[i][1], error) < 0);
		CHECK(*error);
		CHECK(device_keys_equal(&k, &before));
		CHECK_INT(k.set, 0);
	}
	device_keys_deinit(&k);
	device_keys_deinit(&before);
}

TEST(a_copy_is_equal_and_lives_by_itself)
{
	struct device_keys a, b, c;

	device_keys_init(&a);
	for (size_t i = 0; i < n_conf_keys; i++)
		set(&a, samples[i].key, samples[i].values[0]);
	CHECK_INT(device_keys_copy(&b, &a), 0);
	CHECK_INT(device_keys_copy(&c, &b), 0);
	CHECK(b.set == a.set);
	device_keys_deinit(&a);
	CHECK(device_keys_equal(&b, &c));
	CHECK_STR(c.addresses[0], "a");
	CHECK(c.uri != b.uri);
	device_keys_deinit(&b);
	device_keys_deinit(&c);
	device_keys_deinit(&c);		/* harmless: it is empty */
}

TEST(each_address_counts_for_equality)
{
	struct device_keys a, b;

	device_keys_init(&a);
	device_keys_init(&b);
	set(&a, "addresses", "s,t");
	set(&b, "addresses", "s,u");
	CHECK(!device_keys_equal(&a, &b));
	set(&b, "addresses", " s ,\tt");
	CHECK(device_keys_equal(&a, &b));
	device_keys_deinit(&a);
	device_keys_deinit(&b);
}

TEST(a_flag_stands_for_yes_and_tls_for_require)
{
	const char *value = NULL;
	struct device_keys k;

	device_keys_init(&k);
	set(&k, "swap", NULL);
	set(&k, "read-only", NULL);
	set(&k, "tls", NULL);
	CHECK(k.swap && k.read_only && k.tls == CONF_TLS_REQUIRE);
	device_keys_deinit(&k);
	CHECK(conf_key_find("swap", &value) && strcmp(value, "yes") == 0);
	CHECK(conf_key_find("tls", &value) && strcmp(value, "require") == 0);
	CHECK(conf_key_find("port", &value) && !value);
}

TEST(other_names_lead_to_the_rows)
{
	static const char *const pairs[][2] = {
		{ "bs", "block-size" }, { "conns", "connections" },
		{ "tlshostname", "tls-hostname" }, { "priority", "tls-priority" },
		{ "cacertfile", "tls-ca-file" }, { "certfile", "tls-cert-file" },
		{ "keyfile", "tls-key-file" },
	};
	static const char *const idle[] = { "persist", "unix", "no_optgo", "_netdev", "_" };
	static const char *const none[] = { "", "sdp", "x", "URI" };
	char error[CONF_ERROR_MAX], *text = NULL;
	struct device_keys k, untouched;

	device_keys_init(&k);
	device_keys_init(&untouched);
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		CHECK(conf_key_find(pairs[i][0], NULL) == conf_key_find(pairs[i][1], NULL));
	for (size_t i = 0; i < ARRAY_SIZE(idle); i++) {
		CHECK_INT(conf_key_find(idle[i], NULL)->type, CONF_NOTHING);
		CHECK_INT(device_keys_set(&k, idle[i], "anything", error), 0);
		CHECK_INT(device_keys_get(&k, idle[i], &text), -ENOENT);
	}
	CHECK(device_keys_equal(&k, &untouched) && !k.set);
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		CHECK(!conf_key_find(none[i], NULL));
		CHECK_INT(device_keys_get(&k, none[i], &text), -ENOENT);
	}
	device_keys_deinit(&k);
}

TEST(devices_are_nbd_and_a_plain_number)
{
	static const char *const bad[] = {
		"", "nbd", "/dev/", "/dev/nbd", "nbd01", "nbd0x1", "nbd1p1", "nbd-1", "nbd+1",
		" nbd1", "nbd1 ", "NBD1", "dev/nbd1", "//dev/nbd1", "/dev//nbd1", "nbd1048576",
		"nbd99999999999999999999",
	};
	unsigned index = 99;

	CHECK_INT(conf_parse_device("nbd0", &index), 0);
	CHECK_INT(index, 0);
	CHECK_INT(conf_parse_device("/dev/nbd1048575", &index), 0);
	CHECK_INT(index, 1048575);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (conf_parse_device(bad[i], &index) != -EINVAL || index != 1048575)
			FAIL("\"%s\" was taken", bad[i]);
}

TEST(names_are_safe_as_arguments_and_files)
{
	static const char *const good[] = { "a", "nbd0", "data.1_x@y:z-", "A9", "_x", "@" };
	static const char *const bad[] = { "", ".", "..", ".a", "-a", "a b", "a/b", "a\n",
					   "caf\xc3\xa9", "a;b", "a\\b", "[a]" };
	char name[CONF_NAME_MAX + 2] = "";

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		CHECK_INT(conf_check_name(good[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (conf_check_name(bad[i]) != -EINVAL)
			FAIL("\"%s\" was taken", bad[i]);
	memset(name, 'n', CONF_NAME_MAX);
	CHECK_INT(conf_check_name(name), 0);
	name[CONF_NAME_MAX] = 'n';
	CHECK_INT(conf_check_name(name), -EINVAL);
}

TEST(addresses_are_split_into_host_and_port)
{
	static const struct {
		const char *text, *host;
		unsigned port;
		bool is_socket;
	} good[] = {
		{ "server", "server", 0 }, { "server:1", "server", 1 },
		{ "192.0.2.1:65535", "192.0.2.1", 65535 }, { "::1", "::1", 0 },
		{ "fe80::1%eth0", "fe80::1%eth0", 0 }, { "[::1]", "::1", 0 },
		{ "[::1]:10809", "::1", 10809 }, { "[fe80::1%eth0]:5", "fe80::1%eth0", 5 },
		{ "/run/x y", "/run/x y", 0, true }, { "/a:b", "/a:b", 0, true },
	};
	static const char *const bad[] = {
		"", ":1", "a:", "a:0", "a:65536", "a:b", "a:1x", "a:-1", "[::1", "[]", "[]:1",
		"[::1]x", "[::1]:", "a/b", "a b", "a\tb", "a,b", "/", "/x\n", "a]", "caf\xc3\xa9",
	};
	struct conf_address a;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		CHECK_INT(conf_parse_address(good[i].text, &a), 0);
		CHECK_STR(a.host, good[i].host);
		CHECK_INT(a.port, good[i].port);
		CHECK_INT(a.is_socket, good[i].is_socket);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (conf_parse_address(bad[i], &a) != -EINVAL)
			FAIL("\"%s\" was taken", bad[i]);
}

TEST(addresses_are_as_long_as_they_may_be)
{
	char text[400];
	struct conf_address a;

	memset(text, 'h', sizeof(text));
	text[CONF_HOST_MAX] = '\0';
	CHECK_INT(conf_parse_address(text, &a), 0);
	text[CONF_HOST_MAX] = 'h';
	text[CONF_HOST_MAX + 1] = '\0';
	CHECK_INT(conf_parse_address(text, &a), -EINVAL);
	*text = '/';
	text[107] = '\0';		/* sun_path has room for 108 */
	CHECK_INT(conf_parse_address(text, &a), 0);
	text[107] = 'h';
	text[108] = '\0';
	CHECK_INT(conf_parse_address(text, &a), -EINVAL);
}

static struct conf *read_text(const char *text)
{
	_cleanup_close_ int fd = memfd_create("conf", MFD_CLOEXEC);
	struct conf *c = NULL;
	char path[64];

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_INT(conf_read(path, NULL, &c), 0);
	return c;
}

TEST(a_device_is_found_by_name_and_by_number)
{
	struct conf *c = read_text("[data]\ndevice=nbd3\nuri=nbd://a\n[nbd0]\nuri=nbd://b\n"
				   "[free]\nuri=nbd://c\n");

	CHECK_INT(c->n_devices, 3);
	CHECK(conf_find(c, "data") == &c->devices[0]);
	CHECK(conf_find(c, "nbd3") == &c->devices[0]);
	CHECK(conf_find(c, "/dev/nbd3") == &c->devices[0]);
	CHECK(conf_find(c, "/dev/nbd0") == &c->devices[1]);
	CHECK(conf_find(c, "free") == &c->devices[2]);
	CHECK(!conf_find(c, "nbd1"));
	CHECK(!conf_find(c, ""));
	conf_free(c);
	conf_free(NULL);
}

TEST(a_problem_names_the_device_that_it_leaves_out)
{
	struct conf *c = read_text("[a]\nuri=nbd://s\nfrob=1\n[b\n");

	CHECK_INT(c->n_problems, 2);
	CHECK_STR(c->problems[0].device, "a");
	CHECK(c->problems[0].fatal && c->problems[0].line == 3);
	CHECK(c->problems[1].fatal && !c->problems[1].device);
	conf_free(c);
}

TEST(another_server_takes_port_and_export_of_the_old_one_away)
{
	struct device_keys k, over;
	char error[CONF_ERROR_MAX];

	device_keys_init(&k);
	device_keys_init(&over);
	CHECK_INT(device_keys_set(&k, "addresses", "a,b", error), 0);
	CHECK_INT(device_keys_set(&k, "port", "7", error), 0);
	CHECK_INT(device_keys_set(&k, "export", "x", error), 0);
	CHECK_INT(device_keys_set(&k, "keepalive", "9s", error), 0);
	CHECK_INT(device_keys_set(&over, "keepalive-timeout", "20s", error), 0);
	CHECK_INT(device_keys_overlay(&k, &over), 0);
	CHECK_INT(k.n_addresses, 2);
	CHECK_INT(k.keepalive_timeout_usec, 20 * USEC_PER_SEC);
	CHECK_INT(device_keys_set(&over, "uri", "nbd://h/y", error), 0);
	CHECK_INT(device_keys_overlay(&k, &over), 0);
	CHECK_INT(k.n_addresses, 0);
	CHECK_INT(k.port, 10809);
	CHECK(!k.export_name);
	CHECK_STR(k.uri, "nbd://h/y");
	CHECK_INT(k.keepalive_usec, 9 * USEC_PER_SEC);
	CHECK_INT(device_keys_check(&k, error), 0);
	device_keys_deinit(&k);
	device_keys_deinit(&over);
}

TEST(keys_that_differ_say_what_they_take)
{
	static const struct {
		const char *key, *value;
		enum conf_change change;
	} rows[] = {
		{ "keepalive", "3s", CONF_LIVE }, { "tls", "require", CONF_RECONNECT },
		{ "export", "y", CONF_MOVE }, { "uri", "nbd://h/y", CONF_MOVE },
		{ "block-size", "4k", CONF_ATTACH }, { "keepalive", "2s", CONF_LIVE },
	};
	struct device_keys a, b;
	char error[CONF_ERROR_MAX];

	device_keys_init(&a);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		device_keys_init(&b);
		CHECK_INT(device_keys_set(&b, rows[i].key, rows[i].value, error), 0);
		CHECK_INT(conf_change_of(device_keys_differ(&a, &b)), rows[i].change);
		/* The last row is the default. */
		CHECK_INT(device_keys_equal(&a, &b), i == ARRAY_SIZE(rows) - 1);
		device_keys_deinit(&b);
	}
	device_keys_deinit(&a);
}
