#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/util/buffer.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"
#include "lib/util/fd.h"
#include "lib/util/units.h"
#include "lib/util/utf8.h"
#include "tests/unit/unit.h"

#define UNTOUCHED 4711

struct number_case {
	const char *text;
	int r;
	uint64_t value;
};

static void check_numbers(int (*parse)(const char *, uint64_t *),
			  const struct number_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = UNTOUCHED;
		int r = parse(cases[i].text, &v);

		if (r != cases[i].r || v != (r ? UNTOUCHED : cases[i].value))
			FAIL("\"%s\" gives %d and %" PRIu64, cases[i].text, r, v);
	}
}

TEST(parse_u64_takes_plain_numbers_only)
{
	static const struct number_case cases[] = {
		{ "0", 0, 0 }, { "10809", 0, 10809 }, { "010", 0, 10 }, { "0x2a", 0, 42 },
		{ "0XfF", 0, 255 }, { "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 }, { "0x10000000000000000", -ERANGE, 0 },
		{ "", -EINVAL, 0 }, { " 1", -EINVAL, 0 }, { "1 ", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 }, { "+1", -EINVAL, 0 }, { "1k", -EINVAL, 0 },
		{ "0x", -EINVAL, 0 }, { "0x-1", -EINVAL, 0 }, { "0x0x1", -EINVAL, 0 },
		{ "0x 1", -EINVAL, 0 }, { "a", -EINVAL, 0 }, { "1.5", -EINVAL, 0 },
	};

	check_numbers(parse_u64, cases, ARRAY_SIZE(cases));
}

TEST(parse_u32_ends_at_32_bits)
{
	uint32_t v = 1;

	CHECK_INT(parse_u32("4294967295", &v), 0);
	CHECK_INT(v, UINT32_MAX);
	CHECK_INT(parse_u32("4294967296", &v), -ERANGE);
	CHECK_INT(parse_u32("x", &v), -EINVAL);
	CHECK_INT(v, UINT32_MAX);
}

TEST(parse_size_takes_units_of_1024)
{
	static const struct number_case cases[] = {
		{ "0", 0, 0 }, { "512", 0, 512 }, { "512B", 0, 512 }, { "4k", 0, 4096 },
		{ "4K", 0, 4096 }, { "4KB", 0, 4096 }, { "4KiB", 0, 4096 }, { "1M", 0, 1 << 20 },
		{ "3g", 0, UINT64_C(3) << 30 }, { "1T", 0, UINT64_C(1) << 40 },
		{ "1PiB", 0, UINT64_C(1) << 50 }, { "15E", 0, UINT64_C(15) << 60 },
		{ "16E", -ERANGE, 0 }, { "18446744073709551616", -ERANGE, 0 },
		{ "", -EINVAL, 0 }, { "k", -EINVAL, 0 }, { "4kk", -EINVAL, 0 },
		{ "4iB", -EINVAL, 0 }, { "4Ki", -EINVAL, 0 }, { "-4k", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 }, { "0x10", -EINVAL, 0 }, { "4k ", -EINVAL, 0 },
	};

	check_numbers(parse_size, cases, ARRAY_SIZE(cases));
}

TEST(parse_usec_takes_units_sums_and_fractions)
{
	static const struct number_case cases[] = {
		{ "0", 0, 0 }, { "5", 0, 5 * USEC_PER_SEC }, { "5s", 0, 5 * USEC_PER_SEC },
		{ "5 s", 0, 5 * USEC_PER_SEC }, { "500ms", 0, 500 * USEC_PER_MSEC },
		{ "7us", 0, 7 }, { "2min", 0, 120 * USEC_PER_SEC }, { "1h", 0, 3600000000 },
		{ "1d", 0, 86400000000 }, { "1min 30s", 0, 90 * USEC_PER_SEC },
		{ "1min30s", 0, 90 * USEC_PER_SEC }, { "0.5s", 0, 500000 },
		{ "1.25", 0, 1250000 }, { "0.0000001s", 0, 0 }, { "infinity", 0, USEC_INFINITY },
		{ "", -EINVAL, 0 }, { "s", -EINVAL, 0 }, { "5x", -EINVAL, 0 },
		{ "-5s", -EINVAL, 0 }, { "5.s", -EINVAL, 0 }, { " 5s", -EINVAL, 0 },
		{ "5s,", -EINVAL, 0 }, { "Infinity", -EINVAL, 0 }, { "0x5s", -EINVAL, 0 },
		{ "18446744073710s", -ERANGE, 0 }, { "18446744073709551616us", -ERANGE, 0 },
		{ "18446744073709551615us", -ERANGE, 0 },	/* would be infinity */
		{ "18446744073709551614us 2us", -ERANGE, 0 },
	};

	check_numbers(parse_usec, cases, ARRAY_SIZE(cases));
}

TEST(parse_bool_knows_four_pairs_of_words)
{
	static const char *const words[][2] = {
		{ "no", "yes" }, { "false", "true" }, { "off", "ON" }, { "0", "1" },
	};
	bool v = false;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		CHECK_INT(parse_bool(words[i][1], &v), 0);
		CHECK(v);
		CHECK_INT(parse_bool(words[i][0], &v), 0);
		CHECK(!v);
	}
	v = true;
	CHECK_INT(parse_bool("", &v), -EINVAL);
	CHECK_INT(parse_bool("y", &v), -EINVAL);
	CHECK_INT(parse_bool("2", &v), -EINVAL);
	CHECK(v);
}

TEST(format_size_keeps_one_decimal)
{
	char buf[FORMAT_MAX];

	CHECK_STR(format_size(buf, 0), "0 B");
	CHECK_STR(format_size(buf, 1023), "1023 B");
	CHECK_STR(format_size(buf, 1024), "1 KiB");
	CHECK_STR(format_size(buf, 1536), "1.5 KiB");
	CHECK_STR(format_size(buf, UINT64_C(20) << 30), "20 GiB");
	CHECK_STR(format_size(buf, (UINT64_C(3) << 29)), "1.5 GiB");
	CHECK_STR(format_size(buf, UINT64_MAX), "15.9 EiB");
}

TEST(format_usec_shows_two_units)
{
	char buf[FORMAT_MAX];

	CHECK_STR(format_usec(buf, 0), "0us");
	CHECK_STR(format_usec(buf, 999), "999us");
	CHECK_STR(format_usec(buf, 12345), "12ms");
	CHECK_STR(format_usec(buf, 8200000), "8.2s");
	CHECK_STR(format_usec(buf, 90 * USEC_PER_SEC), "1min 30s");
	CHECK_STR(format_usec(buf, 7260 * USEC_PER_SEC), "2h 1min");
	CHECK_STR(format_usec(buf, UINT64_C(72) * 3600 * USEC_PER_SEC), "3d 0h");
	CHECK_STR(format_usec(buf, USEC_INFINITY), "infinity");
	CHECK(strlen(format_usec(buf, USEC_INFINITY - 1)) < FORMAT_MAX);
}

TEST(times_saturate)
{
	CHECK_INT(usec_add(1, 2), 3);
	CHECK(usec_add(USEC_INFINITY, 1) == USEC_INFINITY);
	CHECK(usec_add(USEC_INFINITY - 1, 5) == USEC_INFINITY);
	CHECK_INT(usec_sub(5, 3), 2);
	CHECK_INT(usec_sub(3, 5), 0);
	CHECK(usec_sub(USEC_INFINITY, 5) == USEC_INFINITY);
}

#define CHECK_ESCAPED(text, expected) do {				\
	char _buf[64];							\
	CHECK_STR(escape_text(_buf, sizeof(_buf), text, sizeof(text) - 1), expected); \
} while (0)

TEST(escape_leaves_text_and_shows_the_rest)
{
	CHECK_ESCAPED("", "");
	CHECK_ESCAPED("plain text ~", "plain text ~");
	CHECK_ESCAPED("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xbe",
		      "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xbe");
	CHECK_ESCAPED("a\nb\tc\x1b[2J\x7f", "a\\x0ab\\x09c\\x1b[2J\\x7f");
	CHECK_ESCAPED("a\0b", "a\\x00b");
	CHECK_ESCAPED("back\\slash", "back\\x5cslash");
	CHECK_ESCAPED("\xff\xfe", "\\xff\\xfe");
	CHECK_ESCAPED("\xc3", "\\xc3");				/* cut off */
	CHECK_ESCAPED("\xc0\xaf", "\\xc0\\xaf");		/* overlong */
	CHECK_ESCAPED("\xed\xa0\x80", "\\xed\\xa0\\x80");	/* surrogate */
	CHECK_ESCAPED("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");	/* past the end */
	CHECK_ESCAPED("\xc2\x85", "\\xc2\\x85");		/* C1 control */
	CHECK_ESCAPED("\xe2\x80\xae", "\\xe2\\x80\\xae");	/* right to left */
}

TEST(utf8_is_taken_as_rfc_3629_has_it)
{
	static const struct {
		const char *text;
		size_t n;
		uint32_t c;
	} cases[] = {
		{ "a", 1, 'a' }, { "\x7f", 1, 0x7f }, { "\xc2\x80", 2, 0x80 },
		{ "\xc3\xa9x", 2, 0xe9 }, { "\xdf\xbf", 2, 0x7ff }, { "\xe0\xa0\x80", 3, 0x800 },
		{ "\xef\xbf\xbf", 3, 0xffff }, { "\xf0\x90\x80\x80", 4, 0x10000 },
		{ "\xf4\x8f\xbf\xbf", 4, 0x10ffff },
		{ "\x80", 0, 0 }, { "\xff", 0, 0 }, { "\xc3", 0, 0 }, { "\xc3(", 0, 0 },
		{ "\xc0\x80", 0, 0 }, { "\xc1\xbf", 0, 0 }, { "\xe0\x9f\xbf", 0, 0 },
		{ "\xed\xa0\x80", 0, 0 }, { "\xf0\x8f\xbf\xbf", 0, 0 },
		{ "\xf4\x90\x80\x80", 0, 0 }, { "\xf5\x80\x80\x80", 0, 0 },
		{ "\xe2\x82", 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t c = 0;

		CHECK_INT(utf8_next(cases[i].text, strlen(cases[i].text), &c), cases[i].n);
		CHECK_INT(c, cases[i].c);
	}
}

TEST(controls_and_hidden_marks_are_not_printable)
{
	static const uint32_t hidden[] = { 0, 0x1b, 0x1f, 0x7f, 0x80, 0x9f, 0x200b, 0x202e,
					   0x2066, 0xfeff };
	static const uint32_t shown[] = { ' ', '~', 0xa0, 0xe9, 0x2010, 0x20ac, 0x1f600 };

	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
		CHECK_INT(utf8_is_printable(hidden[i]), false);
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
		CHECK_INT(utf8_is_printable(shown[i]), true);
}

TEST(escape_shortens_without_cutting_a_character)
{
	char buf[9];

	CHECK_STR(escape_text(buf, sizeof(buf), "12345678", 8), "12345678");
	CHECK_STR(escape_text(buf, sizeof(buf), "123456789", 9), "12345...");
	CHECK_STR(escape_text(buf, sizeof(buf), "1234\n", 5), "1234\\x0a");
	CHECK_STR(escape_text(buf, sizeof(buf), "12345\n", 6), "12345...");
	CHECK_STR(escape_text(buf, sizeof(buf), "1234\xc3\xa9" "567", 9), "1234...");
	CHECK_STR(escape_text(buf, sizeof(buf), "123456\xc3\xa9", 8), "123456\xc3\xa9");
	CHECK_STR(escape_text(buf, 5, "\n\n", 2), "...");
	CHECK_STR(escape_text(buf, 4, "\n\n", 2), "...");
	CHECK_STR(escape_text(buf, 3, "abcd", 4), "ab");	/* no room for dots */
	CHECK_STR(escape_text(buf, 3, "\n", 1), "");
	CHECK(escape_text(buf, 0, "abcd", 4) == buf);
	for (size_t size = 1; size <= sizeof(buf); size++)
		for (size_t len = 0; len < 20; len++)
			CHECK(strlen(escape_text(buf, size, "aaaaaaaaaaaaaaaaaaaa", len)) < size);
}

TEST(printable_text_is_what_escape_leaves_and_backslash)
{
	CHECK(text_is_printable("", 0));
	CHECK(text_is_printable("C:\\x caf\xc3\xa9", 10));
	CHECK(!text_is_printable("a\nb", 3));
	CHECK(!text_is_printable("a\0b", 3));
	CHECK(!text_is_printable("\xc3", 1));
}

TEST(buffer_grows_to_its_maximum_and_no_further)
{
	struct buffer b = BUFFER_NULL(1000);

	CHECK_INT(buffer_append(&b, "hello", 5), 0);
	CHECK_INT(b.len, 5);
	CHECK_INT(buffer_reserve(&b, 995), 0);
	CHECK_INT(b.len, 5);
	CHECK(b.capacity >= 1000);
	CHECK_INT(buffer_reserve(&b, 996), -ENOBUFS);
	CHECK_INT(buffer_reserve(&b, SIZE_MAX), -ENOBUFS);
	CHECK(memcmp(b.data, "hello", 5) == 0);
	buffer_clear(&b);
	CHECK(b.max == 1000 && !b.data && !b.len && !b.capacity);
}

TEST(buffer_keeps_its_order)
{
	struct buffer b = BUFFER_NULL(100000);

	for (unsigned i = 0; i < 10000; i++) {
		unsigned char byte = (unsigned char)(i * 7);

		CHECK_INT(buffer_append(&b, &byte, 1), 0);
	}
	buffer_consume(&b, 9000);
	CHECK_INT(b.len, 1000);
	for (unsigned i = 0; i < 1000; i++)
		CHECK_INT(b.data[i], (unsigned char)((i + 9000) * 7));
	CHECK_INT(buffer_append(&b, NULL, 0), 0);
	buffer_consume(&b, 1000);
	CHECK_INT(b.len, 0);
	buffer_clear(&b);
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

TEST(fd_close_keeps_errno)
{
	int fd = dup(0);

	errno = 99;
	CHECK_INT(fd_close(fd), -1);
	CHECK_INT(fd_close(-1), -1);
	CHECK_INT(errno, 99);
	CHECK(fcntl(fd, F_GETFD) < 0);
}

TEST(fd_flags_are_set_and_cleared)
{
	_cleanup_close_ int fd = dup(0);

	CHECK_INT(fd_set_cloexec(fd, true), 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	CHECK_INT(fd_set_cloexec(fd, false), 0);
	CHECK(!(fcntl(fd, F_GETFD) & FD_CLOEXEC));
	CHECK_INT(fd_set_nonblock(-1, true), -EBADF);
}

/* A connect needs the right to write; without a chmod, which would follow a link. */
TEST(a_unix_socket_has_its_mode_from_the_first_moment_whatever_the_umask)
{
	static const mode_t modes[] = { 0666, 0600 };
	char directory[] = "/tmp/nbdd-unit.XXXXXX", path[256];
	struct stat st;

	CHECK(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/socket", directory);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		mode_t old = umask(077);

		CHECK_INT(fd_bind_unix(fd, path, modes[i]), 0);
		CHECK_INT(umask(old), 077);
		CHECK_INT(stat(path, &st), 0);
		CHECK_INT(st.st_mode, S_IFSOCK | modes[i]);
		CHECK_INT(fd_bind_unix(fd, path, 0600), -EADDRINUSE);
		CHECK_INT(unlink(path), 0);
	}
	CHECK_INT(rmdir(directory), 0);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	CHECK_INT(fd_bind_unix(-1, path, 0600), -ENAMETOOLONG);
}

TEST(nonblocking_reads_do_not_wait)
{
	int s[2];
	char c;

	CHECK_INT(pipe(s), 0);
	CHECK_INT(fd_set_nonblock(s[0], true), 0);
	CHECK(read(s[0], &c, 1) < 0 && errno == EAGAIN);
	close(s[0]);
	close(s[1]);
}

TEST(descriptors_pass_over_a_socket)
{
	int s[2], p[2], got[3], n_before;
	size_t n = ARRAY_SIZE(got);
	char buf[8];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	CHECK_INT(pipe(p), 0);
	n_before = (int)count_fds();
	CHECK_INT(fd_send(s[0], "hi", 2, p, 2), 0);
	CHECK_INT(fd_recv(s[1], buf, sizeof(buf), got, &n), 2);
	CHECK_INT(n, 2);
	CHECK(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
	CHECK(write(got[1], "x", 1) == 1 && read(p[0], buf, 1) == 1 && *buf == 'x');
	fd_close(got[0]);
	fd_close(got[1]);
	CHECK_INT(count_fds(), n_before);
	CHECK_INT(fd_send(s[0], "", 0, NULL, 0), -EINVAL);
	CHECK_INT(fd_send(s[0], "a", 1, p, FD_PASS_MAX + 1), -EINVAL);
	CHECK_INT(fd_send(s[0], "a", 1, NULL, 0), 0);
	n = ARRAY_SIZE(got);
	CHECK_INT(fd_recv(s[1], buf, sizeof(buf), got, &n), 1);
	CHECK_INT(n, 0);
	close(s[0]);
	n = ARRAY_SIZE(got);
	CHECK_INT(fd_recv(s[1], buf, sizeof(buf), got, &n), 0);
}

/* N descriptors to a receiver that wants ROOM: none may stay behind. */
static void check_surplus(size_t n, size_t room)
{
	int s[2], fds[FD_PASS_MAX], got[FD_PASS_MAX];
	unsigned before;
	char c;

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	before = count_fds();
	for (size_t i = 0; i < n; i++)
		fds[i] = s[0];
	CHECK_INT(fd_send(s[0], "x", 1, fds, n), 0);
	CHECK_INT(fd_recv(s[1], &c, 1, got, &room), -EPROTO);
	CHECK_INT(room, 0);
	CHECK_INT(count_fds(), before);
	close(s[0]);
	close(s[1]);
}

TEST(more_descriptors_than_wanted_are_closed)
{
	check_surplus(1, 0);
	check_surplus(3, 2);
	check_surplus(FD_PASS_MAX, FD_PASS_MAX - 1);
}

TEST(a_message_cut_off_is_an_error)
{
	int s[2], fd = 0, got[2];
	size_t n = 2;
	unsigned before;
	char buf[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s), 0);
	before = count_fds();
	CHECK_INT(fd_send(s[0], "longer", 6, &fd, 1), 0);
	CHECK_INT(fd_recv(s[1], buf, sizeof(buf), got, &n), -EPROTO);
	CHECK_INT(n, 0);
	CHECK_INT(count_fds(), before);
}

TEST(clean_text_keeps_what_was_escaped_before)
{
	char buf[64];

	CHECK_STR(clean_text(buf, sizeof(buf), "a\\x1b\x1b[m", 8), "a\\x1b\\x1b[m");
	CHECK_STR(escape_text(buf, sizeof(buf), "a\\x1b", 5), "a\\x5cx1b");
}
