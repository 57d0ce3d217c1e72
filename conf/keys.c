/* The one table of keys, and the other names that people write. */
#include <string.h>

#include "conf/internal.h"
#include "lib/util/clock.h"

#define MSEC	USEC_PER_MSEC
#define SEC	USEC_PER_SEC
#define HOUR	(60 * USEC_PER_MINUTE)
#define DAY	(24 * HOUR)

#define MEMBER(m) .offset = offsetof(struct device_keys, m)

static const char *const tls_words[] = { "off", "allow", "require", NULL };
static const char *const kernel_tls_words[] = { "auto", "require", "off", NULL };
static const char *const size_change_words[] = { "refuse", "grow", NULL };

const struct conf_key conf_keys[] = {
	{ "uri", CONF_STRING, MEMBER(uri), .min = 1, .max = CONF_VALUE_MAX,
	  .rules = CONF_URI | CONF_OF_ONE_DEVICE, .value = "URI",
	  .change = CONF_MOVE,
	  .text = "The export as an NBD URI, such as nbd://server/export or "
		  "nbd+unix:///export?socket=/run/nbd.sock or nbd+vsock://CID:PORT/export. "
		  "Either this or addresses is needed." },
	{ "addresses", CONF_STRINGS, MEMBER(addresses), .min = 1, .max = CONF_ADDRESSES_MAX,
	  .value = "SERVER[,...]",
	  .change = CONF_MOVE,
	  .text = "Servers of the export, tried in this order: a name or an address, with "
		  ":PORT after it where needed, an IPv6 address with a port in brackets, or "
		  "the path of a Unix socket. All connections of a device are with the same "
		  "one: while one of them lives, the others are made anew there, by the same "
		  "address, and no other server is tried." },
	{ "port", CONF_U32, MEMBER(port), .min = 1, .max = 65535, .initial = "10809",
	  .value = "PORT", .change = CONF_MOVE,
	  .text = "TCP port of those addresses that name none." },
	{ "export", CONF_STRING, MEMBER(export_name), .min = 0, .max = CONF_VALUE_MAX,
	  .value = "NAME",
	  .change = CONF_MOVE,
	  .text = "Name of the export. Without it, the name in the URI is used, or else the "
		  "empty name, which is the server's default export." },
	{ "tls", CONF_ENUM, MEMBER(tls), .words = tls_words, .initial = "off",
	  .value = "off|allow|require",
	  .change = CONF_RECONNECT,
	  .text = "Whether the connection is encrypted: never, if the server is able to, or "
		  "always. A URI whose scheme starts with nbds means require." },
	{ "tls-certificates", CONF_STRING, MEMBER(tls_certificates), .min = 1, .max = 4095,
	  .rules = CONF_PATH, .value = "DIRECTORY",
	  .change = CONF_RECONNECT,
	  .text = "Directory of ca-cert.pem, which tells the server's certificate as genuine, "
		  "and, where the server wants one, client-cert.pem with client-key.pem." },
	{ "tls-ca-file", CONF_STRING, MEMBER(tls_ca_file), .min = 1, .max = 4095,
	  .rules = CONF_PATH, .value = "FILE",
	  .change = CONF_RECONNECT,
	  .text = "File of the CAs that tell the server's certificate as genuine, of any name, "
		  "where there is no directory tls-certificates; without it, the CAs that the "
		  "system trusts." },
	{ "tls-cert-file", CONF_STRING, MEMBER(tls_cert_file), .min = 1, .max = 4095,
	  .rules = CONF_PATH, .value = "FILE",
	  .change = CONF_RECONNECT,
	  .text = "File of our certificate, for a server that wants one." },
	{ "tls-key-file", CONF_STRING, MEMBER(tls_key_file), .min = 1, .max = 4095,
	  .rules = CONF_PATH, .value = "FILE",
	  .change = CONF_RECONNECT,
	  .text = "File of the key of tls-cert-file; either file may hold both." },
	{ "tls-psk-file", CONF_STRING, MEMBER(tls_psk_file), .min = 1, .max = 4095,
	  .rules = CONF_PATH, .value = "FILE",
	  .change = CONF_RECONNECT,
	  .text = "File of lines USER:KEY with the key shared between both sides, which "
		  "takes the place of certificates." },
	{ "tls-username", CONF_STRING, MEMBER(tls_username), .min = 1, .max = 255,
	  .value = "NAME", .change = CONF_RECONNECT,
	  .text = "The user whose key in tls-psk-file is used." },
	{ "tls-hostname", CONF_STRING, MEMBER(tls_hostname), .min = 1, .max = 255,
	  .value = "NAME",
	  .change = CONF_RECONNECT,
	  .text = "Name that the server's certificate must carry, where it is not the one "
		  "that was connected to." },
	{ "tls-priority", CONF_STRING, MEMBER(tls_priority), .min = 1, .max = 1023,
	  .rules = CONF_NO_NAME, .value = "STRING", .change = CONF_RECONNECT,
	  .text = "GnuTLS priority string: which versions and ciphers, but not @ and a name "
		  "in a file of the system's, which no connection can read. Without it, the "
		  "ciphers that the kernel has, CHACHA20-POLY1305 first, see nbdd-tls(7)." },
	{ "kernel-tls", CONF_ENUM, MEMBER(kernel_tls), .words = kernel_tls_words,
	  .initial = "auto", .value = "auto|require|off",
	  .change = CONF_RECONNECT,
	  .text = "Whether the kernel encrypts by itself: where it can, always (the attach "
		  "fails where it cannot), or never; otherwise a relay, a process of its own "
		  "for each connection, encrypts for it." },
	{ "connections", CONF_AUTO_U32, MEMBER(connections), .min = 1,
	  .max = CONF_CONNECTIONS_MAX, .initial = "1", .value = "auto|NUMBER",
	  .change = CONF_ATTACH,
	  .text = "Connections to open. More than one is used only where the server says that "
		  "it allows several; auto takes up to four there. With several, requests that "
		  "were in flight on a lost connection are sent again only after up to 30 "
		  "seconds, with one after less than 2 (see requeue-interval)." },
	{ "block-size", CONF_SIZE, MEMBER(block_size), .min = 512, .max = 4096,
	  .rules = CONF_ZERO | CONF_POWER_OF_2, .initial = "0", .value = "BYTES",
	  .change = CONF_ATTACH,
	  .text = "Logical block size of the device; 0 takes what the server prefers." },
	{ "size", CONF_SIZE, MEMBER(size), .min = 512, .max = INT64_MAX,
	  .rules = CONF_ZERO | CONF_OF_ONE_DEVICE, .initial = "0", .value = "BYTES",
	  .change = CONF_ATTACH,
	  .text = "Use the first so many bytes of the export; 0 uses all of it." },
	{ "preinit", CONF_BOOL, MEMBER(preinit), .initial = "no", .value = "yes|no",
	  .rules = CONF_OF_ONE_DEVICE,
	  .change = CONF_MOVE,
	  .text = "The server begins without a handshake, so that size must be given; it is "
		  "taken not to know of flushing, trimming or several connections." },
	{ "read-only", CONF_BOOL, MEMBER(read_only), .initial = "no", .value = "yes|no",
	  .change = CONF_ATTACH,
	  .text = "Make the device read-only although the server would let us write." },
	{ "timeout", CONF_USEC, MEMBER(timeout_usec), .min = SEC, .max = 30 * DAY,
	  .rules = CONF_ZERO | CONF_WHOLE_SECONDS, .initial = "0", .value = "TIME",
	  .text = "Give a connection up for dead when one request takes longer than this. "
		  "With 0 a slow server is left alone, and only a dead one is replaced." },
	{ "requeue-interval", CONF_USEC, MEMBER(requeue_interval_usec), .min = 100 * MSEC,
	  .max = HOUR, .rules = CONF_ZERO, .initial = "300ms", .value = "TIME",
	  .text = "How often the kernel looks for requests whose connection was replaced and "
		  "sends them again; it adds about a second of its own. 0 leaves the kernel's "
		  "own 30 seconds. With several "
		  "connections the kernel also takes a connection for dead on which one request "
		  "takes longer than this, and sends that request again, as often as it takes "
		  "longer: so the default is 30s there, and no slower server can be used." },
	{ "dead-timeout", CONF_USEC, MEMBER(dead_timeout_usec), .min = SEC, .max = 3650 * DAY,
	  .rules = CONF_ZERO | CONF_INFINITY | CONF_WHOLE_SECONDS, .initial = "infinity",
	  .value = "TIME",
	  .text = "How long reads and writes wait for a server that is away before they fail; "
		  "with 0 they fail at once. The device resumes in any case when the server "
		  "is back." },
	{ "reconnect-delay", CONF_USEC, MEMBER(reconnect_delay_usec), .min = 10 * MSEC,
	  .max = HOUR, .initial = "100ms", .value = "TIME",
	  .text = "Pause between the first attempt to reconnect, which is made at once, and "
		  "the second; it doubles with every further one, to a quarter of a second "
		  "while the server merely refuses, and later to reconnect-delay-max. More than "
		  "eight devices that wait for the same server take turns in asking it, and "
		  "when it answers one, all connect. A server that closes one connection after "
		  "the other within a second is asked again after an eighth of a second, and "
		  "then more and more slowly, to once a second; where there are several "
		  "addresses, the next one is." },
	{ "reconnect-delay-max", CONF_USEC, MEMBER(reconnect_delay_max_usec),
	  .min = 10 * MSEC, .max = HOUR, .initial = "5s", .value = "TIME",
	  .text = "The longest pause between two attempts to reconnect." },
	{ "connect-timeout", CONF_USEC, MEMBER(connect_timeout_usec), .min = 100 * MSEC,
	  .max = HOUR, .initial = "15s", .value = "TIME",
	  .text = "Time for one attempt to connect and negotiate." },
	{ "keepalive", CONF_USEC, MEMBER(keepalive_usec), .min = SEC, .max = HOUR,
	  .rules = CONF_ZERO | CONF_WHOLE_SECONDS, .initial = "2s", .value = "TIME",
	  .text = "Idle time after which TCP asks whether the server is still there; with 0 "
		  "it never asks." },
	{ "keepalive-timeout", CONF_USEC, MEMBER(keepalive_timeout_usec), .min = SEC,
	  .max = HOUR, .rules = CONF_ZERO, .initial = "4s", .value = "TIME",
	  .text = "Silence of the network after which a TCP connection is given up for dead; "
		  "0 leaves the kernel's own limit of many minutes." },
	{ "identifier", CONF_STRING, MEMBER(identifier), .min = 1, .max = 255,
	  .rules = CONF_OF_ONE_DEVICE, .value = "TEXT",
	  .change = CONF_ATTACH,
	  .text = "Text that the kernel shows in /sys/block/nbdN/backend and by which the "
		  "daemon knows the device again; by default made from the name and a random "
		  "number." },
	{ "size-change", CONF_ENUM, MEMBER(size_change), .words = size_change_words,
	  .initial = "refuse", .value = "refuse|grow",
	  .text = "What to do when the export comes back with another size: wait until the "
		  "size is right again, or let the device grow, in a moment without requests in "
		  "flight (see nbdd(8)): for servers that are trusted to answer. A device never "
		  "shrinks." },
	{ "swap", CONF_BOOL, MEMBER(swap), .initial = "no", .value = "yes|no",
	  .text = "The device holds swap space: nothing on the way to the server may wait for "
		  "memory." },
	{ "on-event", CONF_STRING, MEMBER(on_event), .min = 1, .max = 1023,
	  .rules = CONF_PATH, .value = "PROGRAM",
	  .text = "Program to run when something happens to the device; the environment says "
		  "what, see PROGRAMS in nbdd(8). Nothing waits for it. Not for a device that "
		  "holds the program itself. An nbdd that is not root runs only what the files "
		  "have for the device, not what it was attached with otherwise." },
	{ "on-event-user", CONF_STRING, MEMBER(on_event_user), .min = 1, .max = 255,
	  .value = "USER",
	  .text = "The user that it runs as; by default nbdd, where there is such a user, else "
		  "nobody." },
};
const size_t n_conf_keys = ARRAY_SIZE(conf_keys);

/* nbd-client's spellings in nbdtab.  `persist` and `no_optgo` describe what nbdd always does
 * (keep the device; fall back where the server does not know NBD_OPT_GO); that a host is a
 * path is seen from its slash, so `unix` adds nothing either. */
const struct conf_alias conf_aliases[] = {
	{ "bs", .key = "block-size" },
	{ "conns", .key = "connections" },
	{ "tls", .key = "tls", .value = "require" },
	{ "tlshostname", .key = "tls-hostname" },
	{ "priority", .key = "tls-priority" },
	{ "persist" }, { "no_optgo" }, { "unix" },
	{ "cacertfile", .key = "tls-ca-file" },
	{ "certfile", .key = "tls-cert-file" },
	{ "keyfile", .key = "tls-key-file" },
	{ "sdp", .refused = "the Sockets Direct Protocol is gone from the kernel: leave sdp out" },
	{},
};

static const struct conf_key nothing = {
	.name = "", .type = CONF_NOTHING, .value = "",
	.text = "Accepted for the sake of nbd-client's nbdtab; it changes nothing.",
};

const struct conf_alias *conf_alias_find(const char *name)
{
	for (const struct conf_alias *a = conf_aliases; a->name; a++)
		if (strcmp(a->name, name) == 0)
			return a;
	return NULL;
}

static const struct conf_key *find_row(const char *name)
{
	for (size_t i = 0; i < n_conf_keys; i++)
		if (strcmp(conf_keys[i].name, name) == 0)
			return &conf_keys[i];
	return NULL;
}

const struct conf_key *conf_key_find(const char *name, const char **ret_value)
{
	const struct conf_alias *alias = conf_alias_find(name);
	const struct conf_key *key = find_row(alias && alias->key ? alias->key : name);
	const char *value = alias ? alias->value : NULL;

	/* nbd-client keeps names that start with `_` free for local use. */
	if (!key && (name[0] == '_' || (alias && !alias->refused)))
		key = &nothing;
	if (!key)
		return NULL;
	if (!value && (key->type == CONF_BOOL || key->type == CONF_NOTHING))
		value = "yes";
	if (ret_value)
		*ret_value = value;
	return key;
}

uint64_t conf_key_bit(const struct conf_key *key)
{
	return key->type == CONF_NOTHING ? 0 : UINT64_C(1) << (key - conf_keys);
}
