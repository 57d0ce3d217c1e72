/* A session: one handle, one connection to a server.  The door of this folder for lib/api;
 * everything here is called with the handle's lock held unless it says otherwise. */
#pragma once

#include <libnbd.h>
#include <nbdd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "lib/io/dial.h"
#include "lib/io/process.h"
#include "lib/io/tls.h"
#include "lib/io/transport.h"
#include "lib/io/uri.h"
#include "lib/session/command.h"
#include "lib/session/error.h"
#include "lib/session/limits.h"
#include "lib/session/meta.h"
#include "lib/session/option.h"
#include "lib/session/poll.h"
#include "lib/session/rx.h"
#include "lib/session/state.h"
#include "lib/session/tx.h"
#include "lib/util/buffer.h"

/* A public call, as error messages and the state check know it. */
struct call {
	const char *name;
	unsigned states;	/* STATES_* in which it is permitted */
};

/* What the user asked for before connecting. */
struct settings {
	int tls;			/* LIBNBD_TLS_* */
	bool verify_peer;
	bool structured_replies, extended_headers;
	bool block_size, full_info, meta_contexts, opt_mode;
	bool pread_initialize;
	bool strict_known;		/* set_strict_mode was called */
	uint32_t strict, handshake_flags;
	uint32_t uri_transports;
	int uri_tls;
	bool uri_local_file, uri_tls_priority;
	char *export_name;
	struct tls_named_files tls_files;
	char *tls_certificates, *tls_username, *tls_psk_file, *tls_hostname, *tls_priority;
	const struct nbdd_tls_credentials *tls_credentials;	/* the user's */
	char *activation_name;
};

/* What the server said. */
struct export {
	const char *protocol;		/* NULL before the hello */
	uint16_t handshake_flags;	/* of the server, that the client took up */
	bool known;			/* size and flags are valid */
	uint64_t size;
	uint16_t flags;			/* transmission flags */
	bool block_sizes;		/* NBD_INFO_BLOCK_SIZE was sent */
	uint32_t block_minimum, block_preferred, block_maximum;
	char *canonical_name, *description;
	bool structured_replies, extended_headers, tls;
};

struct stats { uint64_t bytes_sent, chunks_sent, bytes_received, chunks_received; };

struct nbd_handle {
	pthread_mutex_t lock;
	const struct call *call;	/* the public call that holds the lock */
	/* Read without the lock too. */
	_Atomic uint8_t phase;		/* enum phase */
	_Atomic uint8_t direction;	/* LIBNBD_AIO_DIRECTION_* */
	_Atomic unsigned in_flight;	/* commands whose reply is not in yet */
	atomic_uintptr_t private_data;
	/* A loop of the user's own, see session_in_loop. */
	atomic_bool direction_asked;	/* since the last notification */
	atomic_bool direction_stale;	/* the user will ask for it before he waits */
	uint8_t loop_rounds;		/* in a row that went so */
	unsigned burst, last_burst;	/* requests of this round, of the last that had any */
	bool debug;
	bool disconnecting;		/* NBD_CMD_DISC was queued */
	bool connected_by_socket;	/* no URI can be made */
	bool tls_unproven;		/* TLS is active, but the server said nothing since */

	struct transport transport;
	struct tx tx;
	struct rx rx;
	struct commands commands;
	struct export export;
	struct settings settings;
	struct meta meta;
	struct option_exchange option;
	struct stats stats;

	/* Waiting: one thread polls the socket, others sleep until it is back; one of them
	 * waits for room in the socket when the first, which may be in recv(2), cannot. */
	bool polling, pushing;
	int wake_fd;			/* eventfd for the latter, -1 before there was one */
	unsigned sleepers;
	pthread_cond_t woken;

	struct dial *dial;		/* while connecting */
	struct nbdd_uri *target;	/* what get_uri tells */
	struct process process;
	char *name;
	nbd_debug_callback debug_callback;
};

/* Set the thread's error in the name of the current call.  Returns -1. */
#define session_error(h, errnum, ...) error_set((h)->call->name, (errnum), __VA_ARGS__)

#define CALLBACK_CALL(cb, ...) ((cb).callback((cb).user_data, ##__VA_ARGS__))

/* Call free, if there is one, and forget the callback. */
#define CALLBACK_FREE(cb) \
	do { \
		if ((cb).free) \
			(cb).free((cb).user_data); \
		memset(&(cb), 0, sizeof(cb)); \
	} while (0)

/* Move the callback at P out of its place. */
#define CALLBACK_TAKE(p) \
	({ __typeof__(*(p)) _cb = *(p); memset((p), 0, sizeof(_cb)); _cb; })

struct nbd_handle *session_new(const char *name);
void session_free(struct nbd_handle *h);

/* Start the handshake over connected socket FD, which is the session's from now on when
 * this returns 0; -1 with the error set. */
_must_check_ int session_attach(struct nbd_handle *h, int fd);
/* Start connecting to one of N addresses.  0, or -1 with the error set. */
_must_check_ int session_dial(struct nbd_handle *h, const struct nbdd_address *a, size_t n);

/* Go on connecting, READY as for dial_step: 0 or -1 with the error set. */
_must_check_ int dialling_step(struct nbd_handle *h, const struct pollfd *ready);
/* The transport is there. */
void session_attached(struct nbd_handle *h);

/* Forget what was learned of the export. */
void session_reset_export(struct nbd_handle *h);

/* The connection is over.  DEAD after a fault, CLOSED after an end in order; commands in
 * flight fail with ENOTCONN.  session_die returns -1, for use after session_error. */
int session_die(struct nbd_handle *h);
void session_closed(struct nbd_handle *h);

/* handshake.c: receive once and act on it, as rx_receive. */
_must_check_ ssize_t handshake_receive(struct nbd_handle *h, bool wait);
/* starttls.c: what the settings ask for. */
struct tls_config starttls_config(struct nbd_handle *h);
/* The server agreed to NBD_OPT_STARTTLS: 0, or -1 with the error set. */
_must_check_ int starttls_begin(struct nbd_handle *h);
/* Go on with the TLS handshake, as rx_receive. */
_must_check_ ssize_t starttls_receive(struct nbd_handle *h, bool wait);
/* What the server says of the export's size and flags: 0, or -1 with the error set. */
_must_check_ int handshake_set_export(struct nbd_handle *h, uint64_t size, uint16_t flags);
/* The handshake is complete: transmission begins. */
_must_check_ int handshake_finished(struct nbd_handle *h);

/* stop.c */
_must_check_ int session_disconnect(struct nbd_handle *h, uint32_t flags);
_must_check_ int session_shutdown(struct nbd_handle *h, uint32_t flags);

/* debug.c: a line for the debug log; FORMAT without a newline. */
_printf_(2, 3) void debug_log(struct nbd_handle *h, const char *format, ...);
