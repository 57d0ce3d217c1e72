/* What ends with time: the use that a key is good for, and certificates. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;
struct link;

#define TLS_CERTIFICATE_SOON_DAYS 14

/* After how many records, by a key that is not good for any number, to connect anew. */
uint64_t tls_records_max(void);

/* A link of D is alive: look at its keys and certificates from time to time. */
void tls_watch(struct device *d);

/* Days until EXPIRES (seconds since 1970), negative when it has passed. */
int64_t tls_days_left(int64_t expires);
/* A sentence about a certificate of L (OWN or the server's) that ends soon, or false. */
bool tls_certificate_ends(const struct link *l, bool own, char *dst, size_t size);

/* How long to wait before looking at a key again that has been used for RECORDS of LIMIT,
 * and DONE of them in the last USEC. */
uint64_t tls_watch_pause(uint64_t records, uint64_t limit, uint64_t done, uint64_t usec);
