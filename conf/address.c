/* Servers, devices and names, as people write them. */
#include "conf/conf.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "lib/util/escape.h"
#include "lib/util/units.h"

/* The kernel keeps a device's index in a minor number of 20 bits. */
#define DEVICE_INDEX_MAX ((1u << 20) - 1)

static int parse_port(const char *text, uint16_t *ret)
{
	uint32_t port;

	if (!isdigit((unsigned char)*text) || parse_u32(text, &port) < 0 ||
	    port < 1 || port > UINT16_MAX)
		return -EINVAL;
	*ret = (uint16_t)port;
	return 0;
}

static bool is_host(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isgraph((unsigned char)text[i]) || strchr("/[],", text[i]))
			return false;
	return len > 0 && len <= CONF_HOST_MAX;
}

static int parse_socket(const char *text, struct conf_address *ret)
{
	size_t len = strlen(text);

	if (len < 2 || len >= sizeof((struct sockaddr_un){}.sun_path) ||
	    !text_is_printable(text, len))
		return -EINVAL;
	*ret = (struct conf_address){ .is_socket = true };
	memcpy(ret->host, text, len);
	return 0;
}

int conf_parse_address(const char *text, struct conf_address *ret)
{
	struct conf_address a = {};
	const char *end, *colon;

	if (*text == '/')
		return parse_socket(text, ret);
	if (*text == '[') {
		end = strchr(++text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		colon = end[1] ? end + 1 : NULL;
	} else {
		colon = strchr(text, ':');
		/* Two colons and no brackets: an IPv6 address without a port. */
		if (colon && strchr(colon + 1, ':'))
			colon = NULL;
		end = colon ? colon : text + strlen(text);
	}
	if (!is_host(text, (size_t)(end - text)))
		return -EINVAL;
	if (colon && parse_port(colon + 1, &a.port) < 0)
		return -EINVAL;
	memcpy(a.host, text, (size_t)(end - text));
	*ret = a;
	return 0;
}

int conf_parse_device(const char *text, unsigned *ret_index)
{
	uint32_t index;

	if (strncmp(text, "/dev/", 5) == 0)
		text += 5;
	if (strncmp(text, "nbd", 3) != 0)
		return -EINVAL;
	text += 3;
	/* The node is called nbd7: nbd07, nbd0x7 and nbd7p1 name nothing that we attach. */
	if (!isdigit((unsigned char)text[0]) || (text[0] == '0' && text[1]))
		return -EINVAL;
	if (parse_u32(text, &index) < 0 || index > DEVICE_INDEX_MAX)
		return -EINVAL;
	*ret_index = index;
	return 0;
}

int conf_check_name(const char *name)
{
	size_t len = strnlen(name, CONF_NAME_MAX + 1);

	/* Names become arguments and names of files. */
	if (len < 1 || len > CONF_NAME_MAX || *name == '-' || *name == '.')
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (!isascii(name[i]) ||
		    (!isalnum((unsigned char)name[i]) && !strchr("._@:-", name[i])))
			return -EINVAL;
	return 0;
}
