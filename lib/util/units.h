/* Numbers, sizes and times as people write them.  Parsers return 0, -EINVAL for text that
 * is not of the form, -ERANGE for a value that does not fit; they write *RET only at 0. */
#pragma once

#include <stdint.h>

#include "lib/util/macro.h"

/* Decimal, or hexadecimal after 0x; nothing before or after, no sign. */
_must_check_ int parse_u64(const char *text, uint64_t *ret);
_must_check_ int parse_u32(const char *text, uint32_t *ret);

/* Bytes: a number with an optional unit k, M, G, T, P, E (either case, an `iB` or `B` may
 * follow): powers of 1024. */
_must_check_ int parse_size(const char *text, uint64_t *ret);

/* A time in microseconds: `5` (seconds), `5s`, `500ms`, `2min`, `1min 30s`, `1h`, `1d`,
 * `0.5s`, `infinity`. */
_must_check_ int parse_usec(const char *text, uint64_t *ret);

/* Truth: yes/no, true/false, on/off, 1/0. */
#include <stdbool.h>
_must_check_ int parse_bool(const char *text, bool *ret);

#define FORMAT_MAX 32

/* `1.5 GiB`, `512 B`; `1min 30s`, `8.2s`, `infinity`.  Write into BUF, return it. */
char *format_size(char buf[static FORMAT_MAX], uint64_t bytes);
char *format_usec(char buf[static FORMAT_MAX], uint64_t usec);
