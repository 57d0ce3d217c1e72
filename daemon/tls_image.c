#include "daemon/tls_image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <libnbd.h>
#include "lib/util/macro.h"

size_t tls_image_size(const struct tls_image *image)
{
	size_t len = sizeof(*image);

	for (size_t i = 0; i < N_TLS_PARTS; i++) {
		if (image->size[i] > TLS_IMAGE_MAX - len)
			return 0;
		len += image->size[i];
		/* Text ends where it says. */
		if (i <= TLS_USERNAME && image->size[i] &&
		    ((const uint8_t *)image)[len - 1] != '\0')
			return 0;
	}
	return len;
}

void tls_image_get(struct tls_image *image, struct nbdd_tls_credentials *ret)
{
	uint8_t *at[N_TLS_PARTS], *p = image->bytes;

	for (size_t i = 0; i < N_TLS_PARTS; i++) {
		at[i] = image->size[i] ? p : NULL;
		p += image->size[i];
	}
	*ret = (struct nbdd_tls_credentials) {
		.where = (char *)at[TLS_WHERE],
		.username = (char *)at[TLS_USERNAME],
		.ca = { at[TLS_CA], image->size[TLS_CA] },
		.crl = { at[TLS_CRL], image->size[TLS_CRL] },
		.certificate = { at[TLS_CERTIFICATE], image->size[TLS_CERTIFICATE] },
		.key = { at[TLS_KEY], image->size[TLS_KEY] },
		.psk = { at[TLS_PSK], image->size[TLS_PSK] },
	};
}

static void fail(struct tls_image *image, int error, const char *text)
{
	const char *rest = strstr(text, ": ");

	/* The library's message begins with the function's name. */
	if (strncmp(text, "nbd", 3) == 0 && rest)
		text = rest + 2;
	image->error = (uint32_t)error;
	snprintf(image->message, sizeof(image->message), "%s", text);
}

static void fill(struct tls_image *image, const struct nbdd_tls_credentials *c)
{
	const struct nbdd_tls_data text[] = {
		{ c->where, c->where ? strlen(c->where) + 1 : 0 },
		{ c->username, c->username ? strlen(c->username) + 1 : 0 },
	};
	const struct nbdd_tls_data *parts[N_TLS_PARTS] = {
		[TLS_WHERE] = &text[0], [TLS_USERNAME] = &text[1], [TLS_CA] = &c->ca,
		[TLS_CRL] = &c->crl, [TLS_CERTIFICATE] = &c->certificate, [TLS_KEY] = &c->key,
		[TLS_PSK] = &c->psk,
	};
	size_t len = sizeof(*image);

	for (size_t i = 0; i < N_TLS_PARTS; i++) {
		if (parts[i]->size > TLS_IMAGE_MAX - len) {
			fail(image, EFBIG, "TLS: keys and certificates together have more "
			     "than 1 MiB");
			return;
		}
		if (parts[i]->size)
			memcpy((uint8_t *)image + len, parts[i]->data, parts[i]->size);
		image->size[i] = (uint32_t)parts[i]->size;
		len += parts[i]->size;
	}
}

void tls_image_read(struct nbd_handle *h, struct tls_image *image)
{
	struct nbdd_tls_credentials *c = nbdd_read_tls_credentials(h);

	if (c)
		fill(image, c);
	else
		fail(image, nbd_get_errno() ? nbd_get_errno() : EINVAL, nbd_get_error());
	nbdd_free_tls_credentials(c);
}
