/* The options of fstab that make dependencies (systemd.mount(5)), for a unit that stands in the
 * place of the one that systemd-fstab-generator makes of them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/generator/generator.h"
#include "lib/util/cleanup.h"

#define UNIT_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@"

/* The name of a unit, or the path of a device or a mount point. */
static void print_unit(FILE *f, const char *setting, const char *value)
{
	const char *suffix = strchr(value, '.') ? "" : ".mount";
	char name[UNIT_NAME_MAX];
	bool fits;

	if (*value == '/')
		fits = unit_of_path(name, value, strncmp(value, "/dev/", 5) == 0 ? ".device" :
				    ".mount");
	else
		fits = *value && !value[strspn(value, UNIT_CHARACTERS)] &&
		       (size_t)snprintf(name, sizeof(name), "%s%s", value, suffix) <
		       sizeof(name);
	if (fits)
		fprintf(f, "%s=%s\n", setting, name);
}

static void print_requires(FILE *f, const char *value)
{
	print_unit(f, "Requires", value);
	print_unit(f, "After", value);
}

static void print_before(FILE *f, const char *value)
{
	print_unit(f, "Before", value);
}

static void print_after(FILE *f, const char *value)
{
	print_unit(f, "After", value);
}

static void print_mounts_for(FILE *f, const char *value)
{
	if (*value == '/' && !strchr(value, '"')) {
		fputs("RequiresMountsFor=\"", f);
		print_escaped(f, value);
		fputs("\"\n", f);
	}
}

static const struct {
	const char *name;
	void (*print)(FILE *f, const char *value);
} options[] = {
	{ "x-systemd.requires=", print_requires },
	{ "x-systemd.before=", print_before },
	{ "x-systemd.after=", print_after },
	{ "x-systemd.requires-mounts-for=", print_mounts_for },
};

int print_dependencies(FILE *f, const struct use *u)
{
	_cleanup_free_ char *copy = strdup(u->options);
	char *rest = copy, *option;

	while (copy && (option = strsep(&rest, ",")))
		for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
			size_t len = strlen(options[i].name);

			if (strncmp(option, options[i].name, len) == 0)
				options[i].print(f, option + len);
		}
	return copy ? 0 : -ENOMEM;
}
