#include "lib/record/control.h"

#include <errno.h>

enum { HELLO_REQUEST = 0, NEW_SESSION_TICKET = 4, CERTIFICATE_REQUEST = 13, KEY_UPDATE = 24 };

static int fault(struct record *r, const char *why)
{
	r->why = why;
	return -EPROTO;
}

/* RFC 8446, 6 and B.2; those that a server may have reason to send so late. */
static const char *const alerts[256] = {
	[10] = "sent the TLS alert 'unexpected message'",
	[20] = "sent the TLS alert 'bad record MAC'",
	[22] = "sent the TLS alert 'record overflow'",
	[42] = "sent the TLS alert 'bad certificate'",
	[43] = "sent the TLS alert 'unsupported certificate'",
	[44] = "sent the TLS alert 'certificate revoked'",
	[45] = "sent the TLS alert 'certificate expired'",
	[46] = "sent the TLS alert 'certificate unknown'",
	[48] = "sent the TLS alert 'unknown CA'",
	[49] = "sent the TLS alert 'access denied'",
	[50] = "sent the TLS alert 'decode error'",
	[51] = "sent the TLS alert 'decrypt error'",
	[80] = "sent the TLS alert 'internal error'",
	[90] = "sent the TLS alert 'user canceled'",
	[109] = "sent the TLS alert 'missing extension'",
	[116] = "sent the TLS alert 'certificate required'",
};

static int take_alert(struct record *r)
{
	if (r->len != 2)
		return fault(r, "sent a TLS alert of a wrong length");
	if (r->data[1] == 0)
		return 1;
	return fault(r, alerts[r->data[1]] ? alerts[r->data[1]] : "sent a TLS alert");
}

static int check_message(const struct record_control *c, uint16_t version, struct record *r)
{
	if (version == 0x0303)
		return fault(r, c->header[0] == HELLO_REQUEST
			     ? "asked for another TLS handshake"
			     : "sent an unexpected TLS handshake message");
	switch (c->header[0]) {
	case NEW_SESSION_TICKET:
		return c->left <= RECORD_TICKET_MAX
			? 0 : fault(r, "sent a TLS session ticket that is too long");
	case KEY_UPDATE:
		return fault(r, "changed its TLS key (KeyUpdate)");
	case CERTIFICATE_REQUEST:
		return fault(r, "asked for a certificate after the TLS handshake");
	default:
		return fault(r, "sent an unexpected TLS handshake message");
	}
}

static int take_handshake(struct record_control *c, uint16_t version, struct record *r)
{
	const uint8_t *p = r->data;
	size_t len = r->len, n;

	if (!len)
		return fault(r, "sent an empty TLS handshake record");
	while (len) {
		if (c->left) {
			n = MIN(len, c->left);
			c->left -= n;
			p += n;
			len -= n;
			continue;
		}
		c->header[c->have++] = *p++;
		len--;
		if (c->have < sizeof(c->header))
			continue;
		c->have = 0;
		c->left = (size_t)c->header[1] << 16 | (size_t)c->header[2] << 8 |
			  c->header[3];
		if (check_message(c, version, r) < 0)
			return -EPROTO;
	}
	return 0;
}

int record_control(struct record_control *c, uint16_t version, struct record *r)
{
	if (r->type != RECORD_HANDSHAKE && (c->have || c->left))
		return fault(r, "broke off a TLS handshake message");
	switch (r->type) {
	case RECORD_DATA:
		return 0;
	case RECORD_ALERT:
		return take_alert(r);
	case RECORD_HANDSHAKE:
		return take_handshake(c, version, r);
	default:
		return fault(r, "sent a TLS record of an unexpected type");
	}
}
