#include "daemon/tls_plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <libnbd.h>
#include "daemon/connector.h"
#include "daemon/ktls.h"
#include "daemon/tls_image.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"

/* Ciphers that the kernel has.  First the one whose keys may be used without a limit that
 * matters: a server that uses GnuTLS changes the keys of AES-GCM in TLS 1.3 after 16.7
 * million records, and a kernel before 6.14 cannot follow.  That is a reconnection every few
 * minutes on a busy device, for which faster AES in hardware does not make up unless
 * somebody measured it; he sets tls-priority. */
#define KERNEL_PRIORITY \
	"NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM:+AES-128-GCM"
/* A relay with AES in hardware does five times as much with it: that is worth a reconnection
 * now and then. */
#define RELAY_PRIORITY \
	"NORMAL:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:+CHACHA20-POLY1305"

bool tls_wanted(const struct device_keys *keys, const struct target *target)
{
	return keys->tls != CONF_TLS_OFF || target->tls;
}

void tls_plan_make(struct tls_plan *ret, const struct device_keys *keys,
		   const struct target *target, struct tls_secrets *secrets,
		   const char *distrust)
{
	const struct target_tls *u = &target->uri_tls;

	/* Those without TLS gather for a moment, in which a reload may free the keys. */
	if (!tls_wanted(keys, target)) {
		*ret = (struct tls_plan){ .mode = LIBNBD_TLS_DISABLE };
		return;
	}
	*ret = (struct tls_plan) {
		.mode = target->tls || keys->tls == CONF_TLS_REQUIRE ? LIBNBD_TLS_REQUIRE
			: LIBNBD_TLS_ALLOW,
		.kernel = keys->kernel_tls,
		.distrust = keys->kernel_tls == CONF_KERNEL_TLS_AUTO && distrust[0] ? distrust
			    : NULL,
		.hostname = keys->tls_hostname ? keys->tls_hostname : u->hostname,
		.priority = keys->tls_priority ? keys->tls_priority
			    : u->priority,
		.verify_peer = !u->no_verify,
		.secrets = secrets,
	};
}

/* A socket's path or number is no name that a certificate is made for. */
static const char *server_name(const struct tls_plan *p, const struct server *server)
{
	if (p->hostname)
		return p->hostname;
	return server_is_local(server) ? NULL : server->host;
}

static bool aes_in_hardware(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	return getauxval(AT_HWCAP) & HWCAP_AES;
#else
	return false;
#endif
}

bool tls_plan_asks_kernel(const struct tls_plan *p)
{
	return p->mode != LIBNBD_TLS_DISABLE && p->kernel != CONF_KERNEL_TLS_OFF && !p->distrust;
}

static const char *priority(const struct tls_plan *p, int fd)
{
	char why[TLS_WHY_MAX];

	if (p->priority)
		return p->priority;
	if (tls_plan_asks_kernel(p) && ktls_possible(fd, why))
		return KERNEL_PRIORITY;
	return aes_in_hardware() ? RELAY_PRIORITY : KERNEL_PRIORITY;
}

int tls_plan_apply(const struct tls_plan *p, struct nbd_handle *h, const struct server *server,
		   int fd, struct nbdd_tls_credentials *credentials)
{
	const char *name = server_name(p, server);

	if (p->mode == LIBNBD_TLS_DISABLE)
		return 0;
	tls_image_get(p->image, credentials);
	if (nbd_set_tls(h, p->mode) < 0 || nbd_set_tls_priority(h, priority(p, fd)) < 0 ||
	    nbd_set_tls_verify_peer(h, p->verify_peer) < 0 ||
	    (name && nbd_set_tls_hostname(h, name) < 0))
		return -1;
	return nbdd_set_tls_credentials(h, credentials);
}

static void describe(const struct nbdd_tls_info *info, struct link_tls *ret)
{
	*ret = (struct link_tls) {
		.version = info->version,
		.peer_expires = info->peer_expires,
		.own_expires = info->own_expires,
	};
	memcpy(ret->cipher, info->cipher, sizeof(ret->cipher));
	memcpy(ret->peer, info->peer, sizeof(ret->peer));
}

/* 0 when the records are the kernel's; 1 when they are not and may stay so; or -errno: with
 * RET->why_not filled. */
static int give_to_kernel(const struct tls_plan *p, int fd, const struct nbdd_tls_state *state,
			  struct link_tls *ret)
{
	char *why = ret->why_not;
	int r;

	if (!tls_plan_asks_kernel(p)) {
		snprintf(why, TLS_WHY_MAX, "%s", p->distrust ? p->distrust : "kernel-tls is off");
		return 1;
	}
	r = ktls_start(fd, state, &ret->no_cipher, why);
	return r == 1 && p->kernel == CONF_KERNEL_TLS_REQUIRE ? -ENOTSUP : r;
}

int tls_plan_finish(const struct tls_plan *p, struct nbd_handle *h,
		    const struct export_info *info, struct link_tls *ret,
		    struct nbdd_tls_state *ret_state, char *message)
{
	_cleanup_close_ int fd = -1;
	struct nbdd_tls_state state;
	struct nbdd_tls_info about;
	int r;

	if (nbdd_get_tls_info(h, &about) < 0)
		return -1;
	fd = nbdd_take_tls_socket(h, &state);
	if (fd < 0)
		return -1;
	describe(&about, ret);
	r = give_to_kernel(p, fd, &state, ret);
	if (r == 1)
		*ret_state = state;
	explicit_bzero(&state, sizeof(state));
	if (r == 1)
		return STEAL_FD(fd);
	if (r < 0) {
		snprintf(message, TLS_WHY_MAX, "the kernel cannot do TLS here (%.100s)%s",
			 ret->why_not, p->kernel == CONF_KERNEL_TLS_REQUIRE ?
			 ", but kernel-tls is 'require'" : "");
		return r;
	}
	r = ktls_verify(fd, info, message);
	if (r < 0 && !ktls_by_connection(r))
		snprintf(ret->why_not, sizeof(ret->why_not), "a first read failed: %.150s",
			 message);
	ret->in_kernel = r >= 0;
	return r < 0 ? r : STEAL_FD(fd);
}

static void clean(char *text, size_t size)
{
	char copy[256];

	clean_text(copy, MIN(size, sizeof(copy)), text, strnlen(text, size));
	memcpy(text, copy, strlen(copy) + 1);
}

/* Its byte may be any. */
static void clean_bool(bool *b)
{
	unsigned char byte;

	memcpy(&byte, b, sizeof(byte));
	*b = byte != 0;
}

void link_tls_clean(struct link_tls *t)
{
	clean_bool(&t->in_kernel);
	clean_bool(&t->no_cipher);
	clean(t->cipher, sizeof(t->cipher));
	clean(t->why_not, sizeof(t->why_not));
	clean(t->peer, sizeof(t->peer));
}

const char *link_tls_version(const struct link_tls *t)
{
	return t->version == 0x0304 ? "TLS1.3" : t->version == 0x0303 ? "TLS1.2" : "TLS";
}
