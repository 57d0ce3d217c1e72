/* The states of a handle. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nbd_handle;

enum phase {
	PHASE_CREATED,
	PHASE_CONNECTING,	/* the socket is being connected */
	PHASE_HELLO,		/* "Handshake": the server's first magic numbers */
	PHASE_OLDSTYLE,		/* "Oldstyle negotiation": the rest of it */
	PHASE_NEWSTYLE,		/* "Newstyle negotiation": handshake flags */
	PHASE_OPTION,		/* an option was sent, its replies are awaited */
	PHASE_TLS,		/* the server agreed to it: the TLS handshake */
	PHASE_EXPORT_NAME,	/* NBD_OPT_EXPORT_NAME was sent */
	PHASE_NEGOTIATING,	/* opt mode: the user chooses the next option */
	PHASE_TRANSMISSION,
	PHASE_CLOSED,
	PHASE_DEAD,
	PHASES,
};

#define STATES_CREATED		0x01u
#define STATES_CONNECTING	0x02u
#define STATES_NEGOTIATING	0x04u
#define STATES_CONNECTED	0x08u
#define STATES_CLOSED		0x10u
#define STATES_DEAD		0x20u
#define STATES_ANY		0x3fu

/* The group that a phase belongs to. */
unsigned phase_states(enum phase p);

/* "NAME: what it means", and NAME alone. */
const char *session_state(struct nbd_handle *h);
const char *session_state_name(struct nbd_handle *h);

/* Requests wait to be sent, or a part of a reply is awaited. */
bool session_is_busy(struct nbd_handle *h);

/* "newly created, or negotiating" for STATES, into DST. */
char *states_phrase(char *dst, size_t size, unsigned states);

static inline bool phase_is_connecting(enum phase p)
{
	return p >= PHASE_CONNECTING && p <= PHASE_EXPORT_NAME;
}
