#include <errno.h>
#include <netdb.h>
#include <stddef.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/io/dial.h"
#include "lib/io/lookahead.h"
#include "lib/io/resolve.h"
#include "lib/io/uri.h"
#include "lib/util/fd.h"
#include "tests/unit/unit.h"

static struct nbdd_uri *parse(const char *text)
{
	char message[URI_MESSAGE_MAX];
	struct nbdd_uri *u;

	if (uri_parse(text, &u, message) < 0)
		FAIL("%s: %s", text, message);
	return u;
}

TEST(uri_of_tcp_has_defaults)
{
	struct nbdd_uri *u = parse("nbd://");

	CHECK_INT(u->transport, NBDD_TRANSPORT_TCP);
	CHECK_INT(u->tls, 0);
	CHECK_STR(u->host, "localhost");
	CHECK_STR(u->port, "10809");
	CHECK_STR(u->export_name, "");
	CHECK(!u->username && !u->socket_path && u->verify_peer);
	uri_free(u);
}

TEST(uri_parts_are_decoded_once)
{
	struct nbdd_uri *u = parse("nbds://al%40ice@[::1]:99//a%2520b?tls-psk-file=%2Fk+%26&"
				   "unknown=1&tls-verify-peer=false&tls-hostname=h");

	CHECK_INT(u->tls, 1);
	CHECK_STR(u->username, "al@ice");
	CHECK_STR(u->host, "::1");
	CHECK_STR(u->port, "99");
	CHECK_STR(u->export_name, "/a%20b");
	CHECK_STR(u->tls_psk_file, "/k+&");
	CHECK_STR(u->tls_hostname, "h");
	CHECK(!u->verify_peer);
	uri_free(u);
}

TEST(uri_of_vsock_defaults_to_the_host)
{
	struct nbdd_uri *u = parse("nbd+vsock:///x");

	CHECK_INT(u->vsock_cid, 2);
	CHECK_INT(u->vsock_port, 10809);
	uri_free(u);
	u = parse("nbd+vsock://7:9/");
	CHECK_INT(u->vsock_cid, 7);
	CHECK_INT(u->vsock_port, 9);
	uri_free(u);
}

TEST(bad_uris_are_refused_with_the_reason)
{
	static const struct { const char *uri, *reason; int r; } rows[] = {
		{ "", "does not have a scheme", -EINVAL },
		{ "/tmp/x", "nbd+unix://?socket=PATH", -EINVAL },
		{ "http://x", "unknown NBD URI scheme: http", -EINVAL },
		{ "nbd:unix:/x", "must begin with 'nbd://'", -EINVAL },
		{ "nbd+unix:///", "socket parameter", -EINVAL },
		{ "nbd+unix:///?socket=", "socket parameter", -EINVAL },
		{ "nbd://h/?socket=/x", "socket parameter", -EINVAL },
		{ "nbd+vsock://x/", "vsock CID", -EINVAL },
		{ "nbd://[::1", "unable to parse", -EINVAL },
		{ "nbd+ssh://h/", "not supported", -ENOTSUP },
	};
	char message[URI_MESSAGE_MAX];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct nbdd_uri *u = NULL;

		CHECK_INT(uri_parse(rows[i].uri, &u, message), rows[i].r);
		CHECK(!u);
		if (!strstr(message, rows[i].reason))
			FAIL("%s: %s", rows[i].uri, message);
	}
}

TEST(formatted_uri_is_parsed_to_the_same)
{
	static const char *const uris[] = {
		"nbd://h:99/", "nbds://user@h:99/a%20b", "nbd://[2001:db8::1]:1/",
		"nbd+unix:///?socket=/tmp/a%26b", "nbds+unix:///x?socket=/s&tls-psk-file=/k",
		"nbd+vsock://5:6/x%3F", "nbd://h:1/%E2%82%AC",
	};

	for (size_t i = 0; i < sizeof(uris) / sizeof(uris[0]); i++) {
		struct nbdd_uri *u = parse(uris[i]);
		char *text = uri_format(u);

		CHECK_STR(text, uris[i]);
		free(text);
		uri_free(u);
	}
}

TEST(only_known_schemes_look_like_a_uri)
{
	CHECK(uri_looks_like("nbd://x") && uri_looks_like("NBDS+unix:///"));
	CHECK(!uri_looks_like("nbd:x") && !uri_looks_like("/nbd://") &&
	      !uri_looks_like("nbdx://") && !uri_looks_like(""));
}

TEST(addresses_of_two_families_alternate)
{
	struct nbdd_address *a;
	size_t n;

	CHECK_INT(resolve("::1", "1", &a, &n), 0);
	CHECK_INT(n, 1);
	CHECK_INT(a[0].addr.ss_family, AF_INET6);
	free(a);
	CHECK(resolve("localhost", "no-such-port", &a, &n) != 0);
}

TEST(unix_path_has_a_limit)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
	struct nbdd_address a;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	CHECK_INT(unix_address(path, &a), -ENAMETOOLONG);
	path[sizeof(path) - 2] = '\0';
	CHECK_INT(unix_address(path, &a), 0);
	CHECK_INT(a.len, offsetof(struct sockaddr_un, sun_path) + sizeof(path) - 1);
	CHECK_INT(unix_address("", &a), -EINVAL);
}

/* A listening TCP socket; its address into *A. */
static int listener(struct nbdd_address *a)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	*a = (struct nbdd_address) { .len = sizeof(struct sockaddr_in),
				     .addr.ss_family = AF_INET };
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a->addr, a->len) == 0);
	CHECK(listen(fd, 1) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)&a->addr, &a->len) == 0);
	return fd;
}

/* Step until it is over. */
static int dial(const struct nbdd_address *a, size_t n, int *family)
{
	struct dial *d = dial_new(a, n);
	int r;

	while ((r = dial_step(d, NULL, family)) == -EAGAIN) {
		struct pollfd p = { .fd = dial_fd(d), .events = dial_events(d) };

		CHECK_INT(poll(&p, 1, 5000), 1);
	}
	dial_free(d);
	return r;
}

TEST(dialling_passes_over_addresses_that_refuse)
{
	struct nbdd_address a[3];
	int family = 0, closed, open, fd;

	closed = listener(&a[0]);
	a[1] = a[0];
	open = listener(&a[2]);
	fd_close(closed);
	fd = dial(a, 3, &family);
	CHECK(fd >= 0);
	CHECK_INT(family, AF_INET);
	fd_close(fd);
	fd_close(open);
}

TEST(a_descriptor_that_is_0_is_one)
{
	struct nbdd_address a;
	int family, open = listener(&a);

	close(STDIN_FILENO);
	CHECK_INT(dial(&a, 1, &family), STDIN_FILENO);
	fd_close(open);
}

TEST(dialling_reports_the_last_failure)
{
	struct nbdd_address a[2];
	int family;

	fd_close(listener(&a[0]));
	CHECK_INT(unix_address("/nonexistent/socket", &a[1]), 0);
	CHECK_INT(dial(a, 1, &family), -ECONNREFUSED);
	CHECK_INT(dial(a + 1, 1, &family), -ENOENT);
}

TEST(lookahead_is_one_a_thread_unless_it_is_in_use)
{
	uint8_t *a = lookahead_take(), *b = lookahead_take();

	CHECK(a && b && a != b);
	lookahead_give(a);
	lookahead_give(b);
	CHECK(lookahead_take() == a);
	lookahead_give(a);
}
