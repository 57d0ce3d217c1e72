/* Descriptors that somebody untrusted sends over a Unix stream, to who wants none.
 *
 * Those that nobody takes are let go by who reads their message or closes the socket.  When that
 * was the last reference, it waits for the end of the file: of a TCP connection that lingers, for
 * as long as the sender liked (SO_LINGER); of a deleted file, for its disk. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* From now on none comes into SOCK, nor what one that listens accepts, where the kernel has
 * SO_PASSRIGHTS (Linux 6.16); and the others here see all that does, which takes this of each
 * socket that is accepted. */
void rights_refuse(int sock);
/* As recv(2) without a wait, but never of a message with descriptors: the bytes, 0 at the end,
 * or -errno; -EBADMSG: there are some among the next LEN bytes, which stay where they are. */
ssize_t rights_recv(int sock, void *buf, size_t len);
/* Have nothing more come in, and drop what has.  True: SOCK can be closed; false: there are
 * descriptors, and somebody disposable has to. */
bool rights_drain(int sock);
