#include <string.h>

#include "conf/conf.h"
#include "daemon/metrics.h"
#include "lib/util/escape.h"

void metrics_label(FILE *out, const char *text)
{
	char clean[CONF_VALUE_MAX + 1];

	clean_text(clean, sizeof(clean), text, strlen(text));
	for (const char *p = clean; *p; p++) {
		if (*p == '\\' || *p == '"')
			fputc('\\', out);
		fputc(*p, out);
	}
}
