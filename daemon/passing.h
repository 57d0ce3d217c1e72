/* The messages of a handover: a word, a blank or line end, text; and descriptors. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/state.h"
#include "lib/util/fd.h"

#define PASSING_PROTOCOL	1
#define PASSING_SOCKET		"handover"
#define PASSING_TEXT_MAX	(STATE_TEXT_MAX + 64)
#define PASSING_FDS_MAX		CONF_CONNECTIONS_MAX

struct owners;

struct passing {
	char word[16];
	char *text;			/* NUL-terminated, in BUF */
	size_t len;			/* of TEXT */
	int fds[PASSING_FDS_MAX];
	size_t n_fds;
	char buf[PASSING_TEXT_MAX + 1];
};

/* Send WORD and TEXT: 0 or -errno. */
_must_check_ int passing_send(int sock, const char *word, const char *text, size_t len,
			      const int *fds, size_t n_fds);
_must_check_ _printf_(3, 4) int passing_say(int sock, const char *word, const char *format,
					    ...);
/* Receive one, waiting no longer than LIMIT_USEC.  0; -ECONNRESET: the other side has
 * closed; -ETIMEDOUT; -EPROTO.  The descriptors are the callee's. */
_must_check_ int passing_receive(int sock, uint64_t limit_usec, struct passing *ret);
/* As above, and WORD must come: -EPROTO for another. */
_must_check_ int passing_expect(int sock, uint64_t limit_usec, const char *word,
				struct passing *ret);
void passing_close_fds(struct passing *p);

/* A pidfd of who is connected to SOCK, if that is one of OWNERS; or -errno (-ESRCH: it has
 * died).  RET_PID is its number, then, too. */
_must_check_ int passing_peer(int sock, const struct owners *owners, int *ret_pid);
/* Has the process ended, or does within LIMIT_USEC? */
bool passing_peer_dead(int pidfd, uint64_t limit_usec);
