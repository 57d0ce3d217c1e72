#include "daemon/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/device.h"
#include "daemon/link.h"
#include "daemon/manager.h"
#include "daemon/outage.h"
#include "daemon/status.h"
#include "lib/util/clock.h"
#include "netlink/nbdk.h"

/* A device, and what sysfs says of it; `index` < 0 while it has no node. */
struct subject {
	const struct device *device;
	int index;
	bool io_known;
	struct nbdk_info io;
};

enum unit { NUMBER, USEC_AS_SECONDS };

/* A row a metric: one value of each device that has it, or WRITE for other labels. */
struct metric {
	const char *name, *type, *help;
	bool (*value)(const struct subject *s, uint64_t *ret);
	enum unit unit;
	void (*write)(FILE *out, const struct metric *x, const struct subject *s);
	uint64_t (*of_network)(const struct link_network *n);	/* for write_network */
	const char *constant;		/* the one sample, for metrics of nbdd itself */
};

/* NAME{device="nbd0",name="root" — the brace stays open. */
static void begin(FILE *out, const struct metric *x, const struct subject *s)
{
	fprintf(out, "%s{device=\"", x->name);
	if (s->index >= 0)
		fprintf(out, "nbd%d", s->index);
	fputs("\",name=\"", out);
	metrics_label(out, s->device->name);
	fputc('"', out);
}

static void end(FILE *out, enum unit unit, uint64_t value)
{
	if (unit == NUMBER)
		fprintf(out, "} %" PRIu64 "\n", value);
	else
		fprintf(out, "} %" PRIu64 ".%06" PRIu64 "\n", value / USEC_PER_SEC,
			value % USEC_PER_SEC);
}

/* ---- values ------------------------------------------------------------------------ */

static bool size(const struct subject *s, uint64_t *ret)
{
	*ret = s->device->size;
	return s->index >= 0;
}

static bool outages(const struct subject *s, uint64_t *ret)
{
	*ret = s->device->outages.count;
	return true;
}

static bool outage_time(const struct subject *s, uint64_t *ret)
{
	*ret = outage_total(s->device);
	return true;
}

static bool attempts(const struct subject *s, uint64_t *ret)
{
	*ret = s->device->all_attempts;
	return true;
}

#define FROM_SYSFS(function, member)						\
	static bool function(const struct subject *s, uint64_t *ret)		\
	{									\
		*ret = s->io.member;						\
		return s->io_known;						\
	}
FROM_SYSFS(read_bytes, read_bytes)
FROM_SYSFS(written_bytes, write_bytes)
FROM_SYSFS(reads, reads)
FROM_SYSFS(writes, writes)
FROM_SYSFS(read_time, read_usec)
FROM_SYSFS(write_time, write_usec)
FROM_SYSFS(in_flight, in_flight)

/* ---- samples with labels of their own ---------------------------------------------- */

static void write_info(FILE *out, const struct metric *x, const struct subject *s)
{
	char uri[STATUS_URI_MAX];

	begin(out, x, s);
	fputs(",uri=\"", out);
	metrics_label(out, status_uri(&s->device->keys, uri));
	fputc('"', out);
	end(out, NUMBER, 1);
}

static void write_state(FILE *out, const struct metric *x, const struct subject *s)
{
	for (enum device_state i = 0; i < STATE_GONE; i++) {
		begin(out, x, s);
		fprintf(out, ",state=\"%s\"", device_state_name(i));
		end(out, NUMBER, s->device->state == i);
	}
}

static void begin_connection(FILE *out, const struct metric *x, const struct subject *s,
			     size_t i)
{
	begin(out, x, s);
	fprintf(out, ",connection=\"%zu\"", i);
}

static void write_up(FILE *out, const struct metric *x, const struct subject *s)
{
	for (size_t i = 0; i < s->device->n_links; i++) {
		begin_connection(out, x, s, i);
		end(out, NUMBER, s->device->links[i].state == LINK_ALIVE);
	}
}

static uint64_t rtt(const struct link_network *n)
{
	return n->rtt_usec;
}

static uint64_t retransmits(const struct link_network *n)
{
	return n->retransmits;
}

static void write_network(FILE *out, const struct metric *x, const struct subject *s)
{
	struct link_network n;

	for (size_t i = 0; i < s->device->n_links; i++) {
		if (!link_network(&s->device->links[i], &n))
			continue;
		begin_connection(out, x, s, i);
		end(out, x->unit, x->of_network(&n));
	}
}

static void write_expiry(FILE *out, const struct metric *x, const struct subject *s)
{
	const struct link *l = NULL;

	for (size_t i = 0; i < s->device->n_links && !l; i++)
		if (s->device->links[i].state == LINK_ALIVE &&
		    s->device->links[i].tls.version)
			l = &s->device->links[i];
	for (int own = 0; l && own < 2; own++) {
		int64_t expires = own ? l->tls.own_expires : l->tls.peer_expires;

		if (expires <= 0)
			continue;
		begin(out, x, s);
		fprintf(out, ",certificate=\"%s\"", own ? "own" : "server");
		end(out, NUMBER, (uint64_t)expires);
	}
}

/* ---- the table --------------------------------------------------------------------- */

static const struct metric metrics[] = {
	{ "nbdd_up", "gauge", "Whether nbdd answers.", .constant = " 1" },
	{ "nbdd_build_info", "gauge", "The version of nbdd.",
	  .constant = "{version=\"" NBDD_VERSION "\"} 1" },
	{ "nbdd_device_info", "gauge", "The export of each device.", .write = write_info },
	{ "nbdd_device_state", "gauge", "1 for the state that the device is in, see nbdctl(8).",
	  .write = write_state },
	{ "nbdd_device_size_bytes", "gauge", "Size of the device.", .value = size },
	{ "nbdd_device_outages_total", "counter",
	  "Outages of the device, the present one included.", .value = outages },
	{ "nbdd_device_outage_seconds_total", "counter",
	  "Time without any connection to a server.", .value = outage_time,
	  .unit = USEC_AS_SECONDS },
	{ "nbdd_device_reconnect_attempts_total", "counter",
	  "Attempts to connect that failed, since nbdd started.", .value = attempts },
	{ "nbdd_device_read_bytes_total", "counter", "Bytes read.", .value = read_bytes },
	{ "nbdd_device_written_bytes_total", "counter", "Bytes written.",
	  .value = written_bytes },
	{ "nbdd_device_reads_completed_total", "counter", "Read requests completed.",
	  .value = reads },
	{ "nbdd_device_writes_completed_total", "counter", "Write requests completed.",
	  .value = writes },
	{ "nbdd_device_read_time_seconds_total", "counter",
	  "Time that completed read requests took, added up.", .value = read_time,
	  .unit = USEC_AS_SECONDS },
	{ "nbdd_device_write_time_seconds_total", "counter",
	  "Time that completed write requests took, added up.", .value = write_time,
	  .unit = USEC_AS_SECONDS },
	{ "nbdd_device_requests_in_flight", "gauge", "Requests that are under way.",
	  .value = in_flight },
	{ "nbdd_connection_up", "gauge", "Whether the connection is alive.",
	  .write = write_up },
	{ "nbdd_connection_rtt_seconds", "gauge", "Round trip time of TCP, smoothed.",
	  .write = write_network, .of_network = rtt, .unit = USEC_AS_SECONDS },
	{ "nbdd_connection_retransmits_total", "counter",
	  "Segments of the present TCP connection that were sent again.",
	  .write = write_network, .of_network = retransmits },
	{ "nbdd_device_certificate_expiry_timestamp_seconds", "gauge",
	  "When the certificate ends that the server, or nbdd itself, has shown.",
	  .write = write_expiry },
};

static void write_one(FILE *out, const struct metric *x, const struct subject *s)
{
	uint64_t value;

	if (x->write) {
		x->write(out, x, s);
	} else if (x->value(s, &value)) {
		begin(out, x, s);
		end(out, x->unit, value);
	}
}

static void write_all(FILE *out, const struct subject *subjects, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		const struct metric *x = &metrics[i];

		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", x->name, x->help, x->name,
			x->type);
		if (x->constant)
			fprintf(out, "%s%s\n", x->name, x->constant);
		for (size_t j = 0; j < n && !x->constant; j++)
			write_one(out, x, &subjects[j]);
	}
}

static void look(struct subject *s, const struct device *d)
{
	*s = (struct subject){ .device = d, .index = -1 };
	if (d->state == STATE_CONNECTING || d->state == STATE_ATTACHING)
		return;
	s->index = d->index;
	s->io_known = nbdk_sysfs_read((unsigned)d->index, &s->io) == 0;
}

static int write_text(struct manager *m, struct subject *subjects, char **ret, size_t *ret_len)
{
	FILE *out = open_memstream(ret, ret_len);

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_devices; i++)
		look(&subjects[i], m->devices[i]);
	write_all(out, subjects, m->n_devices);
	return fclose(out) == EOF ? -ENOMEM : 0;
}

int metrics_text(struct manager *m, char **ret, size_t *ret_len)
{
	struct subject *subjects = calloc(m->n_devices + 1, sizeof(*subjects));
	char *text = NULL;
	size_t len;
	int r = subjects ? write_text(m, subjects, &text, &len) : -ENOMEM;

	free(subjects);
	if (r < 0) {
		free(text);
		return r;
	}
	*ret = text;
	*ret_len = len;
	return 0;
}
