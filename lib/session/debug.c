#include <stdarg.h>
#include <stdio.h>

#include "lib/session/session.h"

#define DEBUG_LINE_MAX 4096

void debug_log(struct nbd_handle *h, const char *format, ...)
{
	const char *name = h->call ? h->call->name : "";
	char line[DEBUG_LINE_MAX];
	va_list ap;

	if (!h->debug)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	if (h->debug_callback.callback)
		CALLBACK_CALL(h->debug_callback, name, line);
	else
		fprintf(stderr, "libnbd: debug: %s: %s: %s\n", h->name, name, line);
}
