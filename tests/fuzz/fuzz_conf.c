/* Any bytes as nbdd.conf and as nbdtab: they are read, and what comes out keeps its promises. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/conf.h"
#include "lib/util/escape.h"
#include "tests/fuzz/fuzz.h"

#define PROMISE(condition) do {						\
	if (!(condition)) {						\
		fprintf(stderr, "broken promise: %s\n", #condition);	\
		abort();						\
	}								\
} while (0)

static void check_problem(const struct conf_problem *p)
{
	PROMISE(strlen(p->text) > 10);
	PROMISE(text_is_printable(p->text, strlen(p->text)));
	PROMISE(!p->device || conf_check_name(p->device) == 0);
}

/* What get gives, set takes, for an equal struct. */
static void check_device(const struct conf *c, const struct conf_device *d)
{
	char error[CONF_ERROR_MAX];
	struct device_keys k;

	PROMISE(conf_check_name(d->name) == 0 && conf_find(c, d->name) == d);
	PROMISE(device_keys_check(&d->keys, error) == 0);
	device_keys_init(&k);
	for (size_t i = 0; i < n_conf_keys; i++) {
		char *text;

		PROMISE(device_keys_get(&d->keys, conf_keys[i].name, &text) == 0);
		PROMISE(!text || device_keys_set(&k, conf_keys[i].name, text, error) == 0);
		free(text);
	}
	PROMISE(device_keys_equal(&k, &d->keys));
	device_keys_deinit(&k);
}

static void check(const char *nbdd_conf, const char *nbdtab)
{
	struct conf *c;

	PROMISE(conf_read(nbdd_conf, nbdtab, &c) == 0);
	PROMISE(c->n_problems <= 2 * CONF_PROBLEMS_MAX && c->n_devices <= CONF_DEVICES_MAX);
	for (size_t i = 0; i < c->n_problems; i++)
		check_problem(&c->problems[i]);
	for (size_t i = 0; i < c->n_devices; i++)
		check_device(c, &c->devices[i]);
	conf_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("conf", MFD_CLOEXEC);
	char path[64];

	PROMISE(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	check(path, NULL);
	check(NULL, path);
	check(path, path);
	close(fd);
	return 0;
}
