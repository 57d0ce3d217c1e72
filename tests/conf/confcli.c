/* confcli --one FILE | --boot FILE | NBDD_CONF NBDTAB
 *
 * Read the files and print their problems, then a line a device with the keys that were
 * given.  Exits with 1 when a problem is an error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "lib/util/cleanup.h"

static void print_device(const struct conf_device *d)
{
	printf("device %s index=%d auto=%d line=%u", d->name, d->index, d->automatic, d->line);
	if (d->nofail)
		printf(" nofail=1");
	for (size_t i = 0; i < n_conf_keys; i++) {
		_cleanup_free_ char *text = NULL;

		if (!(d->keys.set & UINT64_C(1) << i))
			continue;
		if (device_keys_get(&d->keys, conf_keys[i].name, &text) < 0)
			abort();
		printf(" %s=%s", conf_keys[i].name, text ? text : "(none)");
	}
	printf("\n");
}

static int read_boot(const char *file, struct conf **ret)
{
	struct conf_boot b;
	int r = conf_read_boot(file, &b);

	if (r < 0)
		return r;
	if (b.root)
		printf("root %s fstype=%s flags=%s\n", b.root, b.fstype ? b.fstype : "(none)",
		       b.root_flags ? b.root_flags : "(none)");
	*ret = b.conf;
	b.conf = NULL;
	conf_boot_deinit(&b);
	return 0;
}

int main(int argc, char **argv)
{
	struct conf *c;
	size_t fatal;
	int r;

	if (argc != 3)
		return 2;
	if (strcmp(argv[1], "--one") == 0)
		r = conf_read_one(argv[2], &c);
	else if (strcmp(argv[1], "--boot") == 0)
		r = read_boot(argv[2], &c);
	else
		r = conf_read(argv[1], argv[2], &c);
	if (r < 0)
		return 2;
	fatal = conf_print_problems(c, stdout);
	for (size_t i = 0; i < c->n_devices; i++)
		print_device(&c->devices[i]);
	conf_free(c);
	return fatal > 0;
}
