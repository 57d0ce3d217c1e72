#include <stdio.h>
#include <string.h>

#include "lib/session/session.h"

static const struct phase_row {
	const char *text;
	unsigned states;
} phases[PHASES] = {
	[PHASE_CREATED] = { "START: Handle after being initially created", STATES_CREATED },
	[PHASE_CONNECTING] = { "CONNECTING: The socket is being connected",
			       STATES_CONNECTING },
	[PHASE_HELLO] = { "HELLO: Waiting for the server's first message",
			  STATES_CONNECTING },
	[PHASE_OLDSTYLE] = { "OLDSTYLE: Waiting for the rest of the oldstyle handshake",
			     STATES_CONNECTING },
	[PHASE_NEWSTYLE] = { "NEWSTYLE: Waiting for the server's handshake flags",
			     STATES_CONNECTING },
	[PHASE_OPTION] = { "OPTION: Waiting for the reply to an NBD option",
			   STATES_CONNECTING },
	[PHASE_TLS] = { "TLS: The TLS handshake is under way", STATES_CONNECTING },
	[PHASE_EXPORT_NAME] = { "EXPORT_NAME: Waiting for the reply to NBD_OPT_EXPORT_NAME",
				STATES_CONNECTING },
	[PHASE_NEGOTIATING] = { "NEGOTIATING: Connection is ready to negotiate an NBD option",
				STATES_NEGOTIATING },
	[PHASE_TRANSMISSION] = { "READY: Connection is ready to process NBD commands",
				 STATES_CONNECTED },
	[PHASE_CLOSED] = { "CLOSED: Connection is closed", STATES_CLOSED },
	[PHASE_DEAD] = { "DEAD: Connection is in an unrecoverable error state, can only be "
			 "closed", STATES_DEAD },
};

/* A part of transmission: the name that is shown while a message is under way. */
static const char processing[] =
	"PROCESSING: A request or a reply is partly transferred";

static const struct {
	unsigned state;
	const char *phrase;
} phrases[] = {
	{ STATES_CREATED, "newly created" },
	{ STATES_CONNECTING, "connecting" },
	{ STATES_NEGOTIATING, "negotiating" },
	{ STATES_CONNECTED, "connected with the server" },
	{ STATES_CLOSED, "shut down" },
	{ STATES_DEAD, "dead" },
};

unsigned phase_states(enum phase p)
{
	return phases[p].states;
}

bool session_is_busy(struct nbd_handle *h)
{
	return (atomic_load(&h->direction) & LIBNBD_AIO_DIRECTION_WRITE) ||
	       atomic_load(&h->rx.partial);
}

const char *session_state(struct nbd_handle *h)
{
	enum phase p = atomic_load(&h->phase);

	return p == PHASE_TRANSMISSION && session_is_busy(h) ? processing : phases[p].text;
}

const char *session_state_name(struct nbd_handle *h)
{
	static const char *const names[PHASES] = {
		[PHASE_CREATED] = "START", [PHASE_CONNECTING] = "CONNECTING",
		[PHASE_HELLO] = "HELLO", [PHASE_OLDSTYLE] = "OLDSTYLE",
		[PHASE_NEWSTYLE] = "NEWSTYLE", [PHASE_OPTION] = "OPTION",
		[PHASE_TLS] = "TLS", [PHASE_EXPORT_NAME] = "EXPORT_NAME",
		[PHASE_NEGOTIATING] = "NEGOTIATING",
		[PHASE_TRANSMISSION] = "READY", [PHASE_CLOSED] = "CLOSED",
		[PHASE_DEAD] = "DEAD",
	};
	enum phase p = atomic_load(&h->phase);

	return p == PHASE_TRANSMISSION && session_is_busy(h) ? "PROCESSING" : names[p];
}

char *states_phrase(char *dst, size_t size, unsigned states)
{
	size_t len = 0;

	dst[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(phrases); i++)
		if (states & phrases[i].state && len < size)
			len += (size_t)snprintf(dst + len, size - len, "%s%s",
						len ? ", or " : "", phrases[i].phrase);
	return dst;
}
