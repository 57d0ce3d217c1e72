#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/conf.h"
#include "tests/unit/unit.h"

/* The linker sends the allocations of conf/ here; that of number `fail_at` fails. */
static unsigned long allocations, fail_at;

static int fails(void)
{
	return ++allocations == fail_at;
}

#define WRAP(type, name, arguments, pass)				\
	type __real_##name arguments;					\
	type __wrap_##name arguments;					\
	type __wrap_##name arguments { return fails() ? NULL : __real_##name pass; }

WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t m, size_t n), (m, n))
WRAP(void *, realloc, (void *p, size_t n), (p, n))
WRAP(void *, reallocarray, (void *p, size_t m, size_t n), (p, m, n))
WRAP(char *, strdup, (const char *s), (s))

/* With _FORTIFY_SOURCE the compiler calls the second. */
int __real_vasprintf(char **p, const char *format, va_list ap);
int __wrap_vasprintf(char **p, const char *format, va_list ap);
int __wrap___vasprintf_chk(char **p, int flag, const char *format, va_list ap);

int __wrap_vasprintf(char **p, const char *format, va_list ap)
{
	return fails() ? -1 : __real_vasprintf(p, format, ap);
}

int __wrap___vasprintf_chk(char **p, int flag, const char *format, va_list ap)
{
	return __wrap_vasprintf(p, format, ap);
}

static void make_file(char path[64], const char *text)
{
	int fd = memfd_create("conf", MFD_CLOEXEC);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	snprintf(path, 64, "/proc/self/fd/%d", fd);
}

TEST(every_allocation_that_fails_is_told)
{
	char nbdd_conf[64], nbdtab[64];
	unsigned long steps = 0;
	struct conf *c = NULL;
	int r;

	make_file(nbdd_conf, "[defaults]\naddresses=s,t\ntls-certificates=/c\ntls=require\n"
			     "[a]\nexport=e\n[b]\nuri=nbd://s\nuri=nbd://t\nfrob=1\n[c]\n");
	make_file(nbdtab, "nbd0 h e swap,tlshostname=x\nnbd0 h e\nnbd1 h\nnbd2 h e x=1,unix\n");
	do {
		allocations = 0;
		fail_at = ++steps;
		r = conf_read(nbdd_conf, nbdtab, &c);
		if (r != 0)
			CHECK(r == -ENOMEM && !c);
	} while (r != 0 && steps < 10000);
	fail_at = 0;
	CHECK_INT(r, 0);
	CHECK(steps > 60);
	CHECK_INT(c->n_devices, 3);
	conf_free(c);
}

TEST(a_key_that_does_not_fit_the_memory_stays)
{
	static const char *const values[][2] = {
		{ "uri", "nbd://new" }, { "addresses", "new,new2" }, { "export", "new" },
	};
	char error[CONF_ERROR_MAX];
	struct device_keys k;

	device_keys_init(&k);
	for (size_t i = 0; i < 3; i++)
		CHECK_INT(device_keys_set(&k, values[i][0], i ? "old" : "nbd://old", error), 0);
	k.set = 0;
	for (size_t i = 0; i < 3; i++) {
		allocations = 0;
		fail_at = 1;
		CHECK_INT(device_keys_set(&k, values[i][0], values[i][1], error), -ENOMEM);
		fail_at = 0;
		CHECK(strstr(error, "out of memory"));
	}
	CHECK_INT(k.set, 0);
	CHECK_STR(k.uri, "nbd://old");
	CHECK_STR(k.addresses[0], "old");
	CHECK_STR(k.export_name, "old");
	device_keys_deinit(&k);
}
