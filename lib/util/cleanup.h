/* Scope-bound cleanup of the types that the C library hands out. */
#pragma once

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/util/fd.h"
#include "lib/util/macro.h"

static inline void cleanup_free_p(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close_p(int *fd)
{
	fd_close(*fd);
}

static inline void cleanup_fclose_p(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_addrinfo_p(struct addrinfo **a)
{
	if (*a)
		freeaddrinfo(*a);
}

#define _cleanup_free_		_cleanup_(cleanup_free_p)
#define _cleanup_close_		_cleanup_(cleanup_close_p)
#define _cleanup_fclose_	_cleanup_(cleanup_fclose_p)
#define _cleanup_addrinfo_	_cleanup_(cleanup_addrinfo_p)
