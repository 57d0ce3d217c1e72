#include "lib/util/escape.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "lib/util/utf8.h"

#define ESCAPED_BYTE 4	/* \xNN */

/* Length of the sequence at P (LEN bytes left) if it stays as it is, or 0. */
static size_t clean_length(const char *p, size_t len)
{
	uint32_t c;
	size_t n = utf8_next(p, len, &c);

	return n && utf8_is_printable(c) ? n : 0;
}

static size_t plain_length(const char *p, size_t len)
{
	return *p == '\\' ? 0 : clean_length(p, len);
}

typedef size_t (*length_fn)(const char *p, size_t len);

/* Does TEXT, escaped, fit into SIZE bytes with the NUL? */
static bool fits(const char *p, size_t len, size_t size, length_fn stays)
{
	size_t out = 0;

	for (size_t i = 0; i < len && out < size;) {
		size_t n = stays(p + i, len - i);

		out += n ? n : ESCAPED_BYTE;
		i += n ? n : 1;
	}
	return out < size;
}

static char *escape(char *dst, size_t size, const char *text, size_t len, length_fn stays)
{
	const char *end = size < sizeof("...") || fits(text, len, size, stays) ? "" : "...";
	size_t room, out = 0;

	if (!size)
		return dst;
	room = size - strlen(end) - 1;
	for (size_t i = 0; i < len;) {
		size_t n = stays(text + i, len - i);
		size_t need = n ? n : ESCAPED_BYTE;

		if (need > room - out)
			break;
		if (n)
			memcpy(dst + out, text + i, n);
		else
			snprintf(dst + out, size - out, "\\x%02x",
				 (unsigned char)text[i]);
		out += need;
		i += n ? n : 1;
	}
	snprintf(dst + out, size - out, "%s", end);
	return dst;
}

char *escape_text(char *dst, size_t size, const char *text, size_t len)
{
	return escape(dst, size, text, len, plain_length);
}

char *clean_text(char *dst, size_t size, const char *text, size_t len)
{
	return escape(dst, size, text, len, clean_length);
}

bool text_is_printable(const char *text, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = clean_length(text + i, len - i);
		if (!n)
			return false;
	}
	return true;
}
