/* Unit tests in C: TEST(the_promise) { CHECK(…); }.  The program runs the tests that its
 * arguments name, or all; tests/unit/test_unit.py runs each in a process of its own. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_TESTS_MAX 128

struct unit_test {
	const char *name;
	void (*run)(void);
};

extern struct unit_test unit_tests[UNIT_TESTS_MAX];
extern size_t n_unit_tests;

#define TEST(test_name)							\
	static void test_name(void);					\
	__attribute__((constructor)) static void add_##test_name(void)	\
	{								\
		if (n_unit_tests == UNIT_TESTS_MAX)			\
			abort();					\
		unit_tests[n_unit_tests++] =				\
			(struct unit_test){ #test_name, test_name };	\
	}								\
	static void test_name(void)

#define FAIL(...) do {							\
	fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);			\
	fprintf(stderr, __VA_ARGS__);					\
	fputc('\n', stderr);						\
	exit(1);							\
} while (0)

#define CHECK(condition) do {						\
	if (!(condition))						\
		FAIL("not true: %s", #condition);			\
} while (0)

#define CHECK_INT(got, expected) do {					\
	long long _got = (long long)(got), _expected = (long long)(expected); \
	if (_got != _expected)						\
		FAIL("%s is %lld, expected %lld", #got, _got, _expected); \
} while (0)

#define CHECK_STR(got, expected) do {					\
	const char *_got = (got), *_expected = (expected);		\
	if (!_got || strcmp(_got, _expected) != 0)			\
		FAIL("%s is \"%s\", expected \"%s\"", #got, _got ? _got : "(null)", \
		     _expected);					\
} while (0)
