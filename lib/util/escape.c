#include "lib/util/escape.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ESCAPED_BYTE 4	/* \xNN */

/* Length of the valid, printable UTF-8 sequence at P (LEN bytes left), or 0. */
static size_t utf8_length(const unsigned char *p, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n;
	uint32_t c;

	if (p[0] < 0x80)
		return p[0] >= 0x20 && p[0] != 0x7f && p[0] != '\\';
	n = p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 0;
	if (!n || n > len || p[0] >= 0xf8)
		return 0;
	c = p[0] & (0xffu >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || c < 0xa0)
		return 0;
	/* Marks that turn the direction of text would let a name hide what it says. */
	if ((c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	    (c >= 0x2066 && c <= 0x2069) || c == 0xfeff)
		return 0;
	return n;
}

/* Does TEXT, escaped, fit into SIZE bytes with the NUL? */
static bool fits(const unsigned char *p, size_t len, size_t size)
{
	size_t out = 0;

	for (size_t i = 0; i < len && out < size;) {
		size_t n = utf8_length(p + i, len - i);

		out += n ? n : ESCAPED_BYTE;
		i += n ? n : 1;
	}
	return out < size;
}

char *escape_text(char *dst, size_t size, const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	const char *end = fits(p, len, size) ? "" : "...";
	size_t room = size - strlen(end) - 1, out = 0;

	for (size_t i = 0; i < len;) {
		size_t n = utf8_length(p + i, len - i);
		size_t need = n ? n : ESCAPED_BYTE;

		if (need > room - out)
			break;
		if (n)
			memcpy(dst + out, p + i, n);
		else
			snprintf(dst + out, size - out, "\\x%02x", p[i]);
		out += need;
		i += n ? n : 1;
	}
	snprintf(dst + out, size - out, "%s", end);
	return dst;
}

bool text_is_printable(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;

	for (size_t i = 0, n; i < len; i += n) {
		n = p[i] == '\\' ? 1 : utf8_length(p + i, len - i);
		if (!n)
			return false;
	}
	return true;
}
