#include "lib/io/lookahead.h"

#include <pthread.h>
#include <stdlib.h>

/* The thread's buffer while nobody uses it; freed with the thread. */
static pthread_key_t key;

__attribute__((constructor)) static void make_key(void)
{
	if (pthread_key_create(&key, free) != 0)
		abort();
}

uint8_t *lookahead_take(void)
{
	uint8_t *buffer = pthread_getspecific(key);

	if (!buffer)
		return malloc(LOOKAHEAD_SIZE);
	pthread_setspecific(key, NULL);
	return buffer;
}

void lookahead_give(uint8_t *buffer)
{
	if (pthread_getspecific(key) || pthread_setspecific(key, buffer) != 0)
		free(buffer);
}
