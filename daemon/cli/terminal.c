#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "daemon/cli/cli.h"

#define COLUMNS_USUAL	80
#define LINES_USUAL	24

/* https://no-color.org: NO_COLOR, when it is set and not empty, means none. */
bool terminal_colour(FILE *f)
{
	const char *none = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(fileno(f)) && !(none && *none) && term && strcmp(term, "dumb") != 0;
}

bool terminal_screen(FILE *f)
{
	const char *term = getenv("TERM");

	return isatty(fileno(f)) && term && strcmp(term, "dumb") != 0;
}

void terminal_size(FILE *f, unsigned *ret_columns, unsigned *ret_lines)
{
	struct winsize size = { 0 };

	*ret_columns = *ret_lines = 0;
	if (!isatty(fileno(f)))
		return;
	if (ioctl(fileno(f), TIOCGWINSZ, &size) < 0)
		size = (struct winsize){ 0 };
	*ret_columns = size.ws_col ? size.ws_col : COLUMNS_USUAL;
	*ret_lines = size.ws_row ? size.ws_row : LINES_USUAL;
}
