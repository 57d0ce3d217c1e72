/* Files in a generator's directories. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/generator/generator.h"

static int fail(const char *path)
{
	int r = -errno;

	fprintf(stderr, "nbdd-generator: cannot write %s: %s\n", path, strerror(-r));
	return r;
}

static int open_file(const char *path, const char *mode, FILE **ret)
{
	*ret = fopen(path, mode);
	if (!*ret)
		return fail(path);
	if (ftell(*ret) == 0)
		fputs("# Made by nbdd-generator.\n", *ret);
	return 0;
}

static int make_directory(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? fail(path) : 0;
}

int open_dropin(const char *dir, const char *unit, FILE **ret)
{
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/%s.d", dir, unit);
	r = make_directory(path);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/%s.d/50-nbdd.conf", dir, unit);
	return open_file(path, "ae", ret);
}

int open_unit(const char *dir, const char *unit, FILE **ret)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, unit);
	return open_file(path, "we", ret);
}

int add_link(const char *dir, const char *target, const char *kind, const char *unit,
	     const char *to)
{
	char path[PATH_MAX], inside[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/%s.%s", dir, target, kind);
	r = make_directory(path);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/%s.%s/%s", dir, target, kind, unit);
	snprintf(inside, sizeof(inside), "../%s", unit);
	if (symlink(to ? to : inside, path) < 0 && errno != EEXIST)
		return fail(path);
	return 0;
}

void print_escaped(FILE *f, const char *text)
{
	for (; *text; text++)
		if (*text == '%')
			fputs("%%", f);
		else if (*text == '\\')
			fputs("\\\\", f);
		else
			fputc(*text, f);
}
