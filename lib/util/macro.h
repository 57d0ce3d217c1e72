/* Attributes and small macros that every folder uses. */
#pragma once

#include <stddef.h>

#define _cleanup_(f)	__attribute__((cleanup(f)))
#define _printf_(a, b)	__attribute__((format(printf, a, b)))
#define _must_check_	__attribute__((warn_unused_result))
#define _unused_	__attribute__((unused))
#define _noreturn_	__attribute__((noreturn))

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define MIN(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a < _b ? _a : _b; })
#define MAX(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a > _b ? _a : _b; })

/* The enclosing struct of PTR, which points at its member M. */
#define container_of(ptr, type, m) ((type *)((char *)(ptr) - offsetof(type, m)))

/* Hand on what a scope-bound variable holds: the variable forgets it. */
#define STEAL_PTR(p)	({ __typeof__(p) _p = (p); (p) = NULL; _p; })
#define STEAL_FD(fd)	({ int _fd = (fd); (fd) = -1; _fd; })
