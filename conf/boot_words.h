/* The words of the kernel's command line, taken apart in place. */
#pragma once

#include <stdbool.h>

/* Where a root is; what was not given is NULL. */
struct boot_root {
	char *uri;			/* then the next three are NULL */
	char *host;			/* may be empty in nbdroot=: DHCP's */
	char *port, *export_name;
	char *device;			/* nbdroot= */
	char *fstype, *flags, *options;	/* dracut */
};

/* The next word of *REST, quotes taken out as the kernel does; NULL at the end. */
char *boot_next_word(char **rest);
/* TEXT is changed.  0 or -EINVAL. */
int boot_parse_nbdroot(char *text, struct boot_root *ret);
int boot_parse_dracut(char *text, struct boot_root *ret);
/* The next option of a list that dracut would pass to nbd-client, as the name of a key or of
 * an nbdtab option; VALUE may be NULL.  False at the end. */
bool boot_next_option(char **list, const char **ret_name, const char **ret_value);
