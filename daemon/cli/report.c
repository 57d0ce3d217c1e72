#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/cli.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"
#include "lib/util/utf8.h"

/* What scripts find in the JSON object of an error, by exit status. */
static const char *const kinds[] = {
	[CLI_FAILED] = "failed",
	[CLI_USAGE] = "usage",
	[CLI_NO_DAEMON] = "no-daemon",
	[CLI_NO_DEVICE] = "no-device",
	[CLI_HELD] = "held",
	[CLI_LIST_FORBIDDEN] = "listing-forbidden",
	[CLI_LIST_UNSUPPORTED] = "listing-unsupported",
	[CLI_PERMISSION] = "permission",
	[CLI_LOST] = "lost",
};

void *cli_must(void *p)
{
	if (!p) {
		fputs("nbdctl: out of memory\n", stderr);
		exit(CLI_FAILED);
	}
	return p;
}

/* JSON is UTF-8, and terminals obey control characters beyond those that JSON escapes. */
static void print_safely(const char *text)
{
	size_t len = strlen(text), n;
	uint32_t c;

	for (; len; text += n, len -= n) {
		n = utf8_next(text, len, &c);
		if (!n)
			c = 0xfffd;	/* REPLACEMENT CHARACTER */
		n = n ? n : 1;
		if (c != 0xfffd && (c == '\n' || utf8_is_printable(c)))
			fwrite(text, 1, n, stdout);
		else
			printf("\\u%04x", c);
	}
	putchar('\n');
}

void cli_print_json(struct json_object *o)
{
	print_safely(cli_must((void *)json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
		JSON_C_TO_STRING_NOSLASHESCAPE)));
	json_object_put(o);
}

void cli_print_json_line(struct json_object *o)
{
	print_safely(cli_must((void *)json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)));
}

static void print_json_error(enum cli_status status, const char *text)
{
	struct json_object *outer = cli_must(json_object_new_object());
	struct json_object *error = cli_must(json_object_new_object());

	json_object_object_add(error, "kind", json_object_new_string(kinds[status]));
	json_object_object_add(error, "status", json_object_new_int(status));
	json_object_object_add(error, "message", json_object_new_string(text));
	json_object_object_add(outer, "error", error);
	cli_print_json(outer);
}

int cli_error(const struct cli *cli, enum cli_status status, const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	cli_must(text);
	/* cppcheck-suppress nullPointer; cli_must has ended the program then */
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", cli->program ? cli->program : "nbdctl", text);
	if (cli->json)
		print_json_error(status, text);
	return status;
}

void cli_warning(const char *format, ...)
{
	va_list args;

	fputs("nbdctl: warning: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void cli_warnings(struct json_object *list)
{
	size_t n = json_object_is_type(list, json_type_array) ?
		json_object_array_length(list) : 0;

	for (size_t i = 0; i < n; i++) {
		const char *sentence = json_object_get_string(json_object_array_get_idx(list, i));
		char text[CLI_TEXT_MAX];

		if (sentence)
			cli_warning("%s", clean_text(text, sizeof(text), sentence,
						     strlen(sentence)));
	}
}
