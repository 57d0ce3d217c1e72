#include "lib/api/call.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>

struct nbd_handle *api_create(void)
{
	/* Handles are named nbd1, nbd2, ... over the whole process. */
	static atomic_uint count;
	const char *debug = getenv("LIBNBD_DEBUG");
	struct nbd_handle *h;
	char name[16];

	snprintf(name, sizeof(name), "nbd%u", atomic_fetch_add(&count, 1) + 1);
	h = session_new(name);
	if (!h) {
		error_set("nbd_create", ENOMEM, "no memory for a handle");
		return NULL;
	}
	h->debug = debug && strcmp(debug, "1") == 0;
	return h;
}

void api_close(struct nbd_handle *h)
{
	static const struct call call = { "nbd_close", STATES_ANY };

	if (!h)
		return;
	h->call = &call;
	debug_log(h, "closing handle");
	session_free(h);
}

int api_set_handle_name(struct nbd_handle *h, const char *handle_name)
{
	return call_set_string(h, &h->name, handle_name);
}

char *api_get_handle_name(struct nbd_handle *h)
{
	return call_copy_string(h, h->name);
}

uintptr_t api_set_private_data(struct nbd_handle *h, uintptr_t private_data)
{
	return atomic_exchange(&h->private_data, private_data);
}

uintptr_t api_get_private_data(struct nbd_handle *h)
{
	return atomic_load(&h->private_data);
}

const char *api_get_package_name(struct nbd_handle *h)
{
	return "libnbd";
}

const char *api_get_version(struct nbd_handle *h)
{
	return API_VERSION;
}

const char *api_get_version_extra(struct nbd_handle *h)
{
	return API_VERSION_EXTRA;
}

int api_kill_subprocess(struct nbd_handle *h, int signum)
{
	if (h->process.pid <= 0)
		return session_error(h, ESRCH, "no subprocess exists");
	if (signum < 0)
		return session_error(h, EINVAL, "invalid signal number: %d", signum);
	if (kill(h->process.pid, signum ? signum : SIGTERM) < 0)
		return session_error(h, errno, "kill");
	return 0;
}

int64_t api_get_subprocess_pid(struct nbd_handle *h)
{
	if (h->process.pid <= 0)
		return session_error(h, ESRCH, "no subprocess exists");
	return h->process.pid;
}

ssize_t api_get_handle_size(struct nbd_handle *h)
{
	return (ssize_t)malloc_usable_size(h);
}
