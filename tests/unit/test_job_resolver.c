/* A resolver's answer is believed as far as addresses go. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/resolver_check.h"
#include "daemon/tls_plan.h"
#include "lib/util/cleanup.h"
#include "tests/unit/unit.h"

#include <libnbd.h>

/* What a resolver makes of KEYS. */
static void answer_of(const struct device_keys *keys, struct resolved *ret)
{
	struct child_given given = { .job = -1, .kept = -1 };
	struct job job;
	int pair[2];

	CHECK_INT(resolver_job_write(keys, &job), 0);
	given.job = job.fd;
	CHECK_INT(pipe(pair), 0);
	given.kept = pair[1];
	CHECK_INT(resolver_prepare(&given), pair[1]);
	resolver_main(-1, pair[1], &given);
	CHECK_INT(read(pair[0], ret, sizeof(*ret)), sizeof(*ret));
	close(pair[0]);
	close(pair[1]);
	job_free(&given.mapped);
	job_free(&job);
}

static struct device_keys keys_of(const char *uri, const char *address, const char *export_name)
{
	struct device_keys k = { .uri = (char *)uri, .port = 10809,
				 .export_name = (char *)export_name };

	if (address)
		k.addresses[k.n_addresses++] = (char *)address;
	return k;
}

/* What a whole parser of URIs says is what they are found to say. */
TEST(what_stands_in_the_keys_is_taken)
{
	static const struct {
		const char *uri, *address, *export_name;
		bool tls, skips_verify;
	} rows[] = {
		{ "nbd://192.0.2.1" }, { "nbd://192.0.2.1:10810/disk" }, { "nbd://[::1]/a/b" },
		{ "nbd://127.0.0.1//x" }, { "nbd:///x" }, { "nbd://127.0.0.1/a%20b%2Fc#f?g" },
		{ "nbd://127.0.0.1/?x&&y=;z" }, { "nbd://u@[fe80::1]:7/x?export=y" },
		{ "nbd://127.0.0.1/x", "192.0.2.7:99", "other" }, { NULL, "/run/a b", "" },
		{ NULL, "[2001:db8::1]:10", "disk" }, { NULL, "192.0.2.9" },
		{ "nbds://alice@192.0.2.1/x?tls-psk-file=/etc/k", .tls = true },
		{ "nbds://al%40ice:b@192.0.2.1/x?tls-certificates=%2Fetc%2Fc%20d", .tls = true },
		{ "nbds://127.0.0.1?tls-hostname=a.example&tls-hostname=b.example", .tls = true },
		{ "nbds://127.0.0.1/?tls-priority=NORMAL:-VERS-ALL%3A&tls%2Dhostname=c",
		  .tls = true },
		{ "nbds://127.0.0.1/?tls-verify-peer=0", .tls = true, .skips_verify = true },
		{ "nbds://127.0.0.1/?tls-verify-peer=%66alse;x", .tls = true,
		  .skips_verify = true },
		{ "nbds://127.0.0.1/?tls-verify-peer=no&tls-verify-peer=1", .tls = true },
		{ "nbds://127.0.0.1/?tls-verify-peer=never", .tls = true },
		{ "nbd+unix:///disk?socket=/run/nbd%20socket" },
		{ "nbds+unix://alice@/?tls-psk-file=/k&socket=/s", .tls = true },
		{ "nbd+vsock:///x" }, { "nbd+vsock://3:99/x" }, { "nbds+vsock://3", .tls = true },
	};
	char message[RESOLVER_MESSAGE_MAX];
	struct resolved r;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct device_keys k = keys_of(rows[i].uri, rows[i].address, rows[i].export_name);

		answer_of(&k, &r);
		CHECK_STR(r.message, "");
		if (resolver_check(&r, &k, message) < 0)
			FAIL("%s: %s", rows[i].uri, message);
		CHECK_INT(resolver_requires_tls(&k), rows[i].tls);
		CHECK_INT(resolver_skips_verify(k.uri), rows[i].skips_verify);
	}
}

enum change { SERVER, KIND, VSOCK, FEWER, EXPORT, TLS, TLS_GONE };

static void change(struct resolved *r, enum change what)
{
	struct resolved_server *s = &r->servers[0];

	switch (what) {
	case SERVER:
		snprintf(s->host, sizeof(s->host), "example");
		break;
	case KIND:
		s->is_unix = !s->is_unix;
		break;
	case VSOCK:
		s->cid++;
		break;
	case FEWER:
		r->n_servers--;
		break;
	case EXPORT:
		snprintf(r->export_name, sizeof(r->export_name), "dis");
		break;
	case TLS:
		snprintf(r->uri_tls[URI_HOSTNAME], sizeof(r->uri_tls[0]), "example");
		break;
	case TLS_GONE:
		memset(r->uri_tls, 0, sizeof(r->uri_tls));
		break;
	}
}

TEST(anything_else_is_not)
{
	static const char tcp[] = "nbds://a@127.0.0.1/disk?tls-psk-file=/k&tls-hostname=b.example";
	static const struct {
		const char *uri, *address;
		enum change what;
		const char *says;
	} rows[] = {
		{ tcp, NULL, SERVER, "another server than nbds://" },
		{ tcp, NULL, KIND, "another server than nbds://" },
		{ tcp, "/run/s", FEWER, "has 1 servers, expected 2" },
		{ tcp, NULL, EXPORT, "another export than the URI" },
		{ tcp, NULL, TLS, "another tls-hostname than the URI" },
		{ tcp, NULL, TLS_GONE, "another tls-psk-file than the URI" },
		{ "nbd://127.0.0.1/disk", NULL, TLS, "another tls-hostname than the URI" },
		{ "nbd+unix:///disk?socket=/s", NULL, SERVER, "another server than nbd+unix:" },
		{ "nbd+unix:///disk?socket=/s", NULL, KIND, "another server than nbd+unix:" },
		{ "nbd+vsock://3/disk", NULL, VSOCK, "another server than nbd+vsock:" },
		{ "nbd+vsock://3/disk", NULL, SERVER, "another server than nbd+vsock:" },
		{ NULL, "/run/s", SERVER, "another server than /run/s" },
		{ NULL, "/run/s", KIND, "another server than /run/s" },
		{ NULL, "192.0.2.1", KIND, "another server than 192.0.2.1" },
		{ NULL, "192.0.2.1", TLS, "another tls-hostname than the URI" },
	};
	char message[RESOLVER_MESSAGE_MAX];
	struct resolved r;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct device_keys k = keys_of(rows[i].uri, rows[i].address, NULL);

		answer_of(&k, &r);
		CHECK_STR(r.message, "");
		CHECK_INT(resolver_check(&r, &k, message), 0);
		change(&r, rows[i].what);
		CHECK_INT(resolver_check(&r, &k, message), -EPROTO);
		if (!strstr(message, rows[i].says))
			FAIL("'%s' does not say '%s'", message, rows[i].says);
	}
}

TEST(a_text_without_an_end_is_refused)
{
	struct device_keys k = keys_of("nbd://127.0.0.1/disk", NULL, NULL);
	char message[RESOLVER_MESSAGE_MAX];
	struct resolved r;

	answer_of(&k, &r);
	memset(r.export_name, 'x', sizeof(r.export_name));
	CHECK_INT(resolver_check(&r, &k, message), -EPROTO);
	answer_of(&k, &r);
	memset(r.servers[0].host, 'x', sizeof(r.servers[0].host));
	CHECK_INT(resolver_check(&r, &k, message), -EPROTO);
	answer_of(&k, &r);
	memset(r.uri_tls, 'x', sizeof(r.uri_tls));
	CHECK_INT(resolver_check(&r, &k, message), -EPROTO);
}

/* GnuTLS would read a file for it, and be killed for that. */
TEST(a_priority_that_is_a_name_is_refused)
{
	struct device_keys k = keys_of("nbds://127.0.0.1/?tls-priority=%20@SYSTEM", NULL, NULL);
	struct resolved r;

	answer_of(&k, &r);
	CHECK_INT(r.error, -EINVAL);
	CHECK_STR(r.message, "tls-priority of the URI: ' @SYSTEM' is a name in a file, which no "
			     "connection can read; give the priority itself");
}

/* A target of before tls=require, or one that says less. */
TEST(the_key_alone_requires_tls)
{
	struct device_keys k = keys_of("nbd://127.0.0.1", NULL, NULL);
	struct target t = {};
	struct tls_plan plan;

	k.tls = CONF_TLS_REQUIRE;
	tls_plan_make(&plan, &k, &t, NULL, "");
	CHECK_INT(plan.mode, LIBNBD_TLS_REQUIRE);
}

/* Its connection may wait for others while a reload frees the keys. */
TEST(a_plan_without_tls_holds_no_text_of_the_keys)
{
	struct device_keys k = keys_of("nbd://127.0.0.1", NULL, NULL);
	char text[] = "NORMAL";
	struct target t = { .uri_tls = { .hostname = text, .priority = text } };
	struct tls_plan plan;

	k.tls = CONF_TLS_OFF;
	k.kernel_tls = CONF_KERNEL_TLS_AUTO;
	k.tls_hostname = k.tls_priority = text;
	tls_plan_make(&plan, &k, &t, NULL, "it did not follow");
	CHECK_INT(plan.mode, LIBNBD_TLS_DISABLE);
	CHECK(!plan.hostname && !plan.priority && !plan.distrust);
}
