/* The relay's pump in a thread, between a socket pair in the place of the kernel's and a real
 * TLS session in the place of the server. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "daemon/pump.h"
#include "tests/unit/tls_pair.h"

#define MIB (1u << 20)

/* How often anybody has called poll(2) by the name that the pump uses. */
extern atomic_uint polls;
/* What its send(2) fails with, or 0. */
extern atomic_int send_error;

struct bench {
	struct tls_pair pair;
	struct pump *pump;
	pthread_t thread;
	int kernel;			/* our end of the plain pair */
	int plain;
	/* of the pump's thread */
	struct rusage before, after;
	unsigned allocations;
};

/* One end's talk: sends and receives so much, then says that it is done. */
struct talk {
	struct bench *b;
	size_t send, receive, sent, got, piece;
};

struct bench *begin(struct tls_kind kind);
void start(struct bench *b);
void wait_end(struct bench *b);
void end(struct bench *b);

/* Fails after 20 seconds. */
void wait_fd(int fd, short events);
/* Is it so within MSEC? */
bool ready(int fd, short events, int msec);
/* Both take a struct talk; for pthread_create. */
void *kernel_talks(void *arg);
void *server_talks(void *arg);
/* UP bytes from the kernel to the server and DOWN the other way, at the same time. */
void exchange(struct bench *b, size_t up, size_t down);

/* Without waiting: bytes, or -EAGAIN. */
ssize_t kernel_send(struct bench *b, const void *p, size_t len);
ssize_t server_send(struct bench *b, const void *p, size_t len);
/* What comes next: bytes, 0 for the end. */
ssize_t server_hears(struct bench *b);
ssize_t kernel_hears(struct bench *b);
