#include "daemon/identity.h"

#include <stdio.h>

#include "lib/util/units.h"

bool identity_differs(const struct device *d, const struct export_info *new,
		      char reason[static DEVICE_REASON_MAX])
{
	static const struct {
		uint16_t flag;
		const char *name;
	} needed[] = {
		{ FLAG_SEND_FLUSH, "flush" }, { FLAG_SEND_FUA, "FUA" },
		{ FLAG_SEND_TRIM, "trim" }, { FLAG_SEND_WRITE_ZEROES, "write zeroes" },
		{ FLAG_CAN_MULTI_CONN, "several connections" },
	};
	const struct export_info *old = &d->info;
	uint64_t size = device_usable_size(d, new->size);
	char has[FORMAT_MAX], want[FORMAT_MAX];
	bool grows = size > d->size && d->keys.size_change == CONF_SIZE_GROW;

	if (size != d->size && !grows) {
		snprintf(reason, DEVICE_REASON_MAX,
			 "server offers %s (%llu bytes), expected %s (%llu bytes)%s",
			 format_size(has, new->size), (unsigned long long)new->size,
			 format_size(want, d->size), (unsigned long long)d->size,
			 size > d->size ? " (size-change=grow would take it)" : "");
		return true;
	}
	if (new->flags & ~old->flags & FLAG_READ_ONLY) {
		snprintf(reason, DEVICE_REASON_MAX,
			 "server offers the export read-only, expected it writable");
		return true;
	}
	if (new->block_minimum > d->block_size) {
		snprintf(reason, DEVICE_REASON_MAX,
			 "server asks for blocks of %u bytes, the device has %u",
			 new->block_minimum, d->block_size);
		return true;
	}
	if (new->payload_maximum &&
	    (!old->payload_maximum || new->payload_maximum < old->payload_maximum) &&
	    new->payload_maximum < (32u << 20)) {
		snprintf(reason, DEVICE_REASON_MAX,
			 "server takes requests of at most %u bytes, expected %u",
			 new->payload_maximum, old->payload_maximum);
		return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (!(old->flags & ~new->flags & needed[i].flag) ||
		    (needed[i].flag == FLAG_CAN_MULTI_CONN && d->n_links == 1))
			continue;
		snprintf(reason, DEVICE_REASON_MAX,
			 "server no longer offers %s, which the device was attached with",
			 needed[i].name);
		return true;
	}
	return false;
}
