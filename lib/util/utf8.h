/* UTF-8 (RFC 3629). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length in bytes of the sequence at P, LEN > 0 bytes of which are there, and its code
 * point; 0 when it is not UTF-8: cut short, overlong, a surrogate, above U+10FFFF. */
size_t utf8_next(const char *p, size_t len, uint32_t *ret);

/* May it be printed: neither a control (C0, DEL, C1) nor a mark that turns the direction of
 * text or joins it unseen, by which a name could hide what it says. */
bool utf8_is_printable(uint32_t c);
