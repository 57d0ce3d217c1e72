/* File descriptors: closing, flags, names of Unix sockets, and sending over these. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "lib/util/macro.h"

/* Most descriptors that one message may carry (the kernel's SCM_MAX_FD is 253). */
#define FD_PASS_MAX 64

/* Close FD if it is one (>= 0), keep errno, return -1: `fd = fd_close(fd);`. */
int fd_close(int fd);

/* 0 or -errno. */
int fd_set_nonblock(int fd, bool on);
int fd_set_cloexec(int fd, bool on);

/* Bind the Unix socket FD to PATH, whose mode is MODE from its first moment on: who may write
 * into the directory cannot have another file changed instead.  0 or -errno. */
int fd_bind_unix(int fd, const char *path, mode_t mode);

/* Send LEN > 0 bytes and N_FDS descriptors in one message over a Unix socket.
 * 0, or -errno (-EMSGSIZE when only a part went out). */
int fd_send(int sock, const void *buf, size_t len, const int *fds, size_t n_fds);

/* Receive one message of at most LEN bytes and at most *N_FDS descriptors, which are
 * close-on-exec.  Returns the bytes received, 0 at end of file, or -errno: -EPROTO
 * when data or descriptors were cut off (then none is kept).  Sets *N_FDS. */
ssize_t fd_recv(int sock, void *buf, size_t len, int *fds, size_t *n_fds);
