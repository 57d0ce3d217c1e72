#include "lib/session/error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct last_error {
	int errnum;
	char text[ERROR_TEXT_MAX];
};

/* Made at load, never deleted: the library is linked with -z nodelete, so that a thread
 * which ends after dlclose still finds free(). */
static pthread_key_t key;

__attribute__((constructor)) static void make_key(void)
{
	if (pthread_key_create(&key, free) != 0)
		abort();
}

int error_set(const char *call, int errnum, const char *format, ...)
{
	struct last_error *e = pthread_getspecific(key);
	char message[ERROR_TEXT_MAX];
	va_list ap;

	if (!e) {
		e = malloc(sizeof(*e));
		if (!e || pthread_setspecific(key, e) != 0) {
			free(e);
			return -1;
		}
	}
	va_start(ap, format);
	vsnprintf(message, sizeof(message), format, ap);
	va_end(ap);
	e->errnum = errnum;
	if (errnum)
		snprintf(e->text, sizeof(e->text), "%s: %.900s: %s", call, message,
			 strerrordesc_np(errnum) ? strerrordesc_np(errnum) : "Unknown error");
	else
		snprintf(e->text, sizeof(e->text), "%s: %.900s", call, message);
	return -1;
}

const char *error_text(void)
{
	const struct last_error *e = pthread_getspecific(key);

	return e ? e->text : NULL;
}

int error_errno(void)
{
	const struct last_error *e = pthread_getspecific(key);

	return e ? e->errnum : 0;
}
