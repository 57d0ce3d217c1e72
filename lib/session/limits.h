/* What a peer may make this library do, by name. */
#pragma once

#define NAME_MAX_BYTES		4096		/* "Conventions": strings */
#define OPTION_REPLY_MAX	(32 * 1024 + NAME_MAX_BYTES)
#define OPTION_REPLIES_MAX	20000		/* to one option */
#define EXPORTS_MAX		10000		/* of one NBD_OPT_LIST */
#define CONTEXTS_MAX		1024		/* selected at a time */
#define PAYLOAD_MAX		(64u << 20)	/* of one read or write */
#define EXTENTS_MAX		(1u << 20)	/* of one block status chunk */
#define ERROR_CHUNK_MAX		(64 * 1024)
#define CHUNKS_MAX		(1u << 20)	/* of one reply, beside its length */
