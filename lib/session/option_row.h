/* One NBD option: how it is asked, what its replies mean.  Private to this folder. */
#pragma once

#include "lib/session/session.h"
#include "lib/wire/option.h"

struct option_row {
	uint32_t option;
	const char *request_name;	/* in messages about the user's request */
	/* Is it to be sent where a plan may leave it out? */
	bool (*wanted)(struct nbd_handle *h);
	/* Append the option's data.  0, or -errno. */
	int (*data)(struct nbd_handle *h, struct buffer *out);
	/* One reply that is not the final one, of type ITEM.  0, or -1 with the error set. */
	uint32_t item;
	int (*take)(struct nbd_handle *h, struct reader *r);
	/* The server's ACK.  0, or -1 with the error set. */
	int (*ack)(struct nbd_handle *h);
	/* An error reply while connecting: go on (0), or -1 with the error set. */
	int (*refused)(struct nbd_handle *h, uint32_t type, const char *text);
	bool lenient;			/* all error replies are ENOTSUP to the user */
};

extern const struct option_row option_rows[];

/* The row of OPTION. */
const struct option_row *option_row(uint32_t option);
