/* Text from a peer, made safe to print: control bytes, quotes' backslashes and what is not
 * UTF-8 become \xNN; everything else stays. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Escape LEN bytes of TEXT into DST of SIZE bytes, NUL-terminated unless SIZE is 0; what does
 * not fit is replaced by `...`, or by nothing when that does not fit.  Returns DST. */
char *escape_text(char *dst, size_t size, const char *text, size_t len);

/* The same for a sentence whose parts were escaped where they came in, by somebody who is
 * not trusted to have done it: backslashes stay. */
char *clean_text(char *dst, size_t size, const char *text, size_t len);

/* Is TEXT printable as it stands: UTF-8, no control bytes, no marks that turn the direction
 * of text?  (A backslash is.) */
bool text_is_printable(const char *text, size_t len);
