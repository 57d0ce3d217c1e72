#include "lib/api/call.h"

#include <inttypes.h>

int api_poll(struct nbd_handle *h, int timeout)
{
	return session_poll(h, -1, timeout);
}

int api_poll2(struct nbd_handle *h, int fd, int timeout)
{
	return session_poll(h, fd, timeout);
}

int api_aio_get_fd(struct nbd_handle *h)
{
	int fd = session_fd(h);

	if (fd < 0)
		return session_error(h, EINVAL, "connection is not in a connected state");
	return fd;
}

unsigned api_aio_get_direction(struct nbd_handle *h)
{
	return session_direction(h);
}

int api_aio_notify_read(struct nbd_handle *h)
{
	return session_notify_read(h);
}

int api_aio_notify_write(struct nbd_handle *h)
{
	return session_notify_write(h);
}

static int in_states(struct nbd_handle *h, unsigned states)
{
	return (phase_states(atomic_load(&h->phase)) & states) != 0;
}

int api_aio_is_created(struct nbd_handle *h)
{
	return in_states(h, STATES_CREATED);
}

int api_aio_is_connecting(struct nbd_handle *h)
{
	return in_states(h, STATES_CONNECTING);
}

int api_aio_is_negotiating(struct nbd_handle *h)
{
	return in_states(h, STATES_NEGOTIATING);
}

int api_aio_is_ready(struct nbd_handle *h)
{
	return in_states(h, STATES_CONNECTED) && !session_is_busy(h);
}

int api_aio_is_processing(struct nbd_handle *h)
{
	return in_states(h, STATES_CONNECTED) && session_is_busy(h);
}

int api_aio_is_dead(struct nbd_handle *h)
{
	return in_states(h, STATES_DEAD);
}

int api_aio_is_closed(struct nbd_handle *h)
{
	return in_states(h, STATES_CLOSED);
}

int api_aio_command_completed(struct nbd_handle *h, uint64_t cookie)
{
	struct command *c = command_find(h, cookie);
	const char *name;
	int error;

	if (!cookie)
		return session_error(h, EINVAL, "invalid aio cookie %" PRIu64, cookie);
	if (!c || c->state != COMMAND_COMPLETE || c->sync)
		return 0;
	name = command_name(c->type);
	error = c->error;
	command_retire(h, c);
	if (error)
		return session_error(h, error, "%s: command failed", name);
	return 1;
}

int64_t api_aio_peek_command_completed(struct nbd_handle *h)
{
	struct command *c = h->commands.done_first;

	while (c && c->sync)
		c = c->next;
	if (c)
		return (int64_t)c->cookie;
	if (atomic_load(&h->in_flight))
		return 0;
	return session_error(h, EINVAL, "no commands are in flight");
}

int api_aio_in_flight(struct nbd_handle *h)
{
	return (int)atomic_load(&h->in_flight);
}

const char *api_connection_state(struct nbd_handle *h)
{
	return session_state(h);
}
