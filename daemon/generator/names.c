/* Names of units, as systemd makes them from paths (systemd.unit(5)). */
#include <ctype.h>
#include <string.h>

#include "daemon/generator/generator.h"

/* Append TEXT, or say no. */
static bool append(char name[static UNIT_NAME_MAX], const char *text)
{
	size_t used = strlen(name);

	return (size_t)snprintf(name + used, UNIT_NAME_MAX - used, "%s", text) <
	       UNIT_NAME_MAX - used;
}

static bool append_escaped(char name[static UNIT_NAME_MAX], char c)
{
	char text[8] = { c };

	if (c == '/')
		text[0] = '-';
	else if (!isascii(c) || !(isalnum((unsigned char)c) || strchr(":_.", c)) ||
		 (c == '.' && !*name))
		snprintf(text, sizeof(text), "\\x%02x", (unsigned char)c);
	return append(name, text);
}

bool unit_of_path(char ret[static UNIT_NAME_MAX], const char *path, const char *suffix)
{
	bool fits = true;

	ret[0] = '\0';
	while (*path == '/')
		path++;
	if (!*path)
		fits = append(ret, "-");
	for (; *path && fits; path++)
		if (*path != '/' || (path[1] && path[1] != '/'))
			fits = append_escaped(ret, *path);
	return fits && append(ret, suffix);
}

void unit_of_device(char ret[static UNIT_NAME_MAX], const struct conf_device *d)
{
	if (d->index >= 0)
		snprintf(ret, UNIT_NAME_MAX, "nbd@nbd%d.service", d->index);
	else
		snprintf(ret, UNIT_NAME_MAX, "nbd@%s.service", d->name);
}
