#include "lib/io/xml_uri.h"

#include <dlfcn.h>
#include <errno.h>
#include <libxml/uri.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef LIBXML2_SONAME
#define LIBXML2_SONAME "libxml2.so.2"
#endif

/* "ELF dlopen metadata" (UAPI group): tells packagers of a dependency that ldd cannot see. */
#define DLOPEN_NOTE_OWNER	"FDO"
#define DLOPEN_NOTE_TYPE	0x407c0c0a
#define DLOPEN_NOTE_JSON \
	"[{\"feature\":\"uri\",\"description\":\"NBD URIs\"," \
	"\"priority\":\"recommended\"," \
	"\"soname\":[\"" LIBXML2_SONAME "\",\"libxml2.so.16\",\"libxml2.so.2\"]}]"

struct dlopen_note {
	uint32_t owner_size, json_size, type;
	char owner[sizeof(DLOPEN_NOTE_OWNER)];
	_Alignas(uint32_t) char json[sizeof(DLOPEN_NOTE_JSON)];
};

__attribute__((used, section(".note.dlopen"))) _Alignas(uint32_t)
static const struct dlopen_note dlopen_note = {
	sizeof(DLOPEN_NOTE_OWNER), sizeof(DLOPEN_NOTE_JSON), DLOPEN_NOTE_TYPE,
	DLOPEN_NOTE_OWNER, DLOPEN_NOTE_JSON,
};

static struct xml {
	xmlURIPtr (*parse)(const char *);
	void (*free)(xmlURIPtr);
} xml;

static void load_xml(void)
{
	static const char *const names[] = {
		LIBXML2_SONAME, "libxml2.so.16", "libxml2.so.2",
	};
	void *lib = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(names) && !lib; i++)
		lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return;
	xml.free = (void (*)(xmlURIPtr))dlsym(lib, "xmlFreeURI");
	xml.parse = (xmlURIPtr (*)(const char *))dlsym(lib, "xmlParseURI");
}

bool xml_uri_available(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_xml);
	return xml.parse && xml.free;
}

static bool copy(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

int xml_uri_parse(const char *text, struct uri_parts *ret)
{
	struct uri_parts p = {};
	xmlURIPtr uri;
	bool ok;

	if (!xml_uri_available())
		return -ENOTSUP;
	uri = xml.parse(text);
	if (!uri)
		return -EINVAL;
	ok = copy(&p.scheme, uri->scheme) && copy(&p.server, uri->server) &&
	     copy(&p.user, uri->user) && copy(&p.path, uri->path) &&
	     copy(&p.query, uri->query_raw);
	p.port = uri->port > 0 ? uri->port : 0;
	xml.free(uri);
	if (!ok) {
		uri_parts_clear(&p);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

void uri_parts_clear(struct uri_parts *p)
{
	free(p->scheme);
	free(p->server);
	free(p->user);
	free(p->path);
	free(p->query);
	*p = (struct uri_parts) {};
}
