#!/usr/bin/python3
"""Make from api.py what follows from it:  gen.py WHAT FILE

WHAT is header, own-header, map, calls-header, calls.
"""
import re
import sys
import textwrap

from api import (CALLBACKS, CALLS, CONSTANTS, ENUMS, FLAGS, NODES, OWN_NODE, VERSION,
                 VERSION_EXTRA)
from api_text import TEXTS

# kind: C type, how it is shown in the debug log (format, argument), may it not be NULL
KINDS = {
    'bool': ('bool ', '%s', '{0} ? "true" : "false"', False),
    'int': ('int ', '%d', '{0}', False),
    'fd': ('int ', '%d', '{0}', False),
    'u32': ('uint32_t ', '%" PRIu32 "', '{0}', False),
    'u64': ('uint64_t ', '%" PRIu64 "', '{0}', False),
    'cookie': ('uint64_t ', '%" PRIu64 "', '{0}', False),
    'size': ('size_t ', '%zu', '{0}', False),
    'uptr': ('uintptr_t ', '%" PRIuPTR "', '{0}', False),
    'str': ('const char *', '%s', 'DEBUG_STRING({0})', True),
    'strv': ('char **', '%s', 'DEBUG_STRV({0})', True),
    'in': ('const void *', '%s', '"<buf>"', True),
    'out': ('void *', '%s', '"<buf>"', True),
    'sockaddr': ('const struct sockaddr *', '%s', '"<addr>"', True),
    'socklen': ('socklen_t ', '%u', '(unsigned){0}', False),
    'cmdflags': ('uint32_t ', '0x%" PRIx32 "', '{0}', False),
    'addrs': ('const struct nbdd_address *', '%s', '"<addresses>"', True),
    'fds': ('int *', '%s', '"<fds>"', True),
    'iov': ('const struct iovec *', '%s', '"<iov>"', True),
    'tlsstate': ('struct nbdd_tls_state *', '%s', '"<tls state>"', True),
    'tlskeys': ('const struct nbdd_tls_credentials *', '%s',
                '"<tls credentials>"', False),
    'tlskeysfree': ('struct nbdd_tls_credentials *', '%p', '(void *){0}', False),
    'tlsinfo': ('struct nbdd_tls_info *', '%s', '"<tls info>"', True),
    'uri': ('struct nbdd_uri *', '%p', '(void *){0}', False),
}

PHRASES = {
    'created': 'newly created', 'connecting': 'connecting', 'negotiating': 'negotiating',
    'connected': 'connected with the server', 'closed': 'shut down', 'dead': 'dead',
}

BANNER = '/* Made by lib/gen.py from lib/api.py. */\n'


class Arg:
    def __init__(self, word):
        if word.startswith('cb.'):
            self.kind, self.callback = 'callback', word[3:]
            self.name = self.callback + '_callback'
            self.ctype = f'nbd_{self.callback}_callback '
            return
        self.name, self.kind = word.split(':')
        self.callback = None
        base, _, self.table = self.kind.partition('.')
        if base == 'enum':
            self.ctype = 'int '
        elif base == 'flags':
            self.ctype = 'uint32_t '
        else:
            self.ctype = KINDS[self.kind][0]

    def nonnull(self):
        return self.kind in KINDS and KINDS[self.kind][3]

    def shown(self):
        """The format and the C expression for the debug log."""
        if self.callback:
            return self.callback + '=%s', f'{self.name}.callback ? "<fun>" : "NULL"'
        if self.kind.startswith('enum'):
            return self.name + '=%d', self.name
        if self.kind.startswith('flags'):
            return self.name + '=0x%" PRIx32 "', self.name
        _, fmt, expr, _ = KINDS[self.kind]
        return f'{self.name}={fmt}', expr.format(self.name)

    def check(self):
        if self.callback and self.callback != 'completion':
            return (f'call_pointer(&call, CALLBACK_GIVEN({self.name}), '
                    f'"{self.callback}")')
        if self.nonnull():
            return f'call_pointer(&call, {self.name}, "{self.name}")'
        if self.kind.startswith('enum'):
            return (f'call_enum(&call, {self.name}, {len(ENUMS[self.table])}, '
                    f'"{self.name}")')
        if self.kind.startswith('flags'):
            return (f'call_flags(&call, {self.name}, LIBNBD_{self.table.upper()}_MASK, '
                    f'"{self.name}")')
        return None


def arguments(call):
    return [Arg(w) for w in call.args.split()]


def prototype(call, internal=False):
    parts = [] if call.has('nohandle') else ['struct nbd_handle *h']
    for a in arguments(call):
        parts.append(f'{a.ctype}*{a.name}' if internal and a.callback
                     else f'{a.ctype}{a.name}')
    returns = call.returns if call.returns.endswith('*') else call.returns + ' '
    name = 'api_' + call.name if internal else call.symbol + ' '
    return wrap(f'{returns}{name}({", ".join(parts) or "void"})')


def wrap(text, width=88):
    """Break TEXT into lines; a declaration breaks between its parameters only."""
    out, line = [], ''
    words = text.split(' ')
    if '(' in text:
        words = re.sub(r', ', ',\n', text).split('\n')
    for word in words:
        if line and len(line) + 1 + len(word) > width:
            out.append(line)
            line = '\t' + word
        else:
            line = f'{line} {word}' if line else word
    return '\n'.join(out + [line])


def nonnull_attribute(call):
    first = 0 if call.has('nohandle') else 1
    places = [i + 1 + first for i, a in enumerate(arguments(call)) if a.nonnull()]
    if first and call.name != 'close':
        places.insert(0, 1)
    return f'\n    LIBNBD_ATTRIBUTE_NONNULL({", ".join(map(str, places))})' if places else ''


def declaration(call):
    extra = nonnull_attribute(call)
    if call.name == 'create':
        extra += '\n    LIBNBD_ATTRIBUTE_ALLOC_DEALLOC(nbd_close)'
    return (f'extern {prototype(call)}{extra};\n'
            f'#define LIB{call.symbol.upper().replace("NBD_", "NBD_HAVE_NBD_", 1)} 1\n'
            if not call.own else f'extern {prototype(call)}{extra};\n')


HEADER_TOP = '''/* libnbd.h: a client of the Network Block Device protocol.  See libnbd(3). */
#ifndef LIBNBD_H
#define LIBNBD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LIBNBD_GCC_VERSION \\
    (__GNUC__ * 10000 + __GNUC_MINOR__ * 100 + __GNUC_PATCHLEVEL__)
#endif

#ifndef LIBNBD_ATTRIBUTE_NONNULL
#if defined(__GNUC__) && LIBNBD_GCC_VERSION >= 120000
#define LIBNBD_ATTRIBUTE_NONNULL(...) __attribute__((__nonnull__(__VA_ARGS__)))
#else
#define LIBNBD_ATTRIBUTE_NONNULL(...)
#endif
#endif

#if defined(__GNUC__) && LIBNBD_GCC_VERSION >= 120000
#define LIBNBD_ATTRIBUTE_ALLOC_DEALLOC(fn) \\
    __attribute__((__malloc__, __malloc__(fn, 1)))
#else
#define LIBNBD_ATTRIBUTE_ALLOC_DEALLOC(fn)
#endif

struct nbd_handle;

'''

HEADER_END = '''
#ifdef __cplusplus
}
#endif

#endif /* LIBNBD_H */
'''


def define(name, value):
    return f'#define {name:<40} {value}\n'


def constants():
    out = ''
    for name, rows in ENUMS.items():
        for word, value in rows:
            out += define(f'LIBNBD_{name.upper()}_{word}', value)
        out += '\n'
    for name, rows in FLAGS.items():
        mask = 0
        for word, value in rows:
            mask |= value
            out += define(f'LIBNBD_{name.upper()}_{word}', f'0x{value:02x}U')
        out += define(f'LIBNBD_{name.upper()}_MASK', f'0x{mask:02x}U') + '\n'
    for word, value in CONSTANTS:
        out += define(f'LIBNBD_{word}', value)
    return out + '\n'


def callback_type(name):
    fn = wrap(f'  int (*callback) (void *user_data, {CALLBACKS[name]});')
    return (f'typedef struct {{\n{fn}\n  void *user_data;\n'
            f'  void (*free) (void *user_data);\n}} nbd_{name}_callback;\n')


def callbacks():
    out = '''typedef struct {
  uint64_t length;		/* bytes */
  uint64_t flags;		/* of the metadata context */
} nbd_extent;

/* Callbacks are passed by value.  free, unless NULL, is called exactly once, after the last
 * use of the callback, also when the call that took it fails. */
'''
    for name in CALLBACKS:
        out += (callback_type(name)
                + f'#define LIBNBD_HAVE_NBD_{name.upper()}_CALLBACK 1\n\n')
    return out + ('#ifdef __cplusplus\n'
                  '#define NBD_NULL_COMPLETION (nbd_completion_callback ())\n'
                  '#else\n'
                  '#define NBD_NULL_COMPLETION '
                  '((nbd_completion_callback) { .callback = NULL })\n'
                  '#endif\n\n')


def header():
    calls = '\n'.join(declaration(c) for c in CALLS if not c.own)
    return BANNER + HEADER_TOP + constants() + callbacks() + calls + HEADER_END


OWN_TOP = '''/* nbdd.h: additions to libnbd.h by nbdd's library.  See libnbd(3). */
#ifndef NBDD_H
#define NBDD_H

#include <libnbd.h>
#include <stddef.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An address to connect to. */
struct nbdd_address {
  socklen_t len;
  struct sockaddr_storage addr;
};

enum nbdd_transport {
  NBDD_TRANSPORT_TCP,
  NBDD_TRANSPORT_UNIX,
  NBDD_TRANSPORT_VSOCK
};

/* A parsed NBD URI.  What the URI does not say is NULL, but export_name (""), host
 * ("localhost" for TCP) and port ("10809"). */
struct nbdd_uri {
  int transport;		/* enum nbdd_transport */
  int tls;			/* 1: the scheme demands TLS */
  char *host, *port;		/* TCP */
  char *socket_path;		/* Unix */
  char *export_name;
  char *username;
  char *tls_certificates, *tls_psk_file, *tls_hostname, *tls_priority;
  bool verify_peer;		/* true unless tls-verify-peer=false */
  uint32_t vsock_cid, vsock_port;
};

/* The ciphers whose record state can be taken over. */
enum nbdd_tls_cipher {
  NBDD_TLS_AES_128_GCM = 1,
  NBDD_TLS_AES_256_GCM,
  NBDD_TLS_CHACHA20_POLY1305
};

/* One direction of a TLS connection. */
struct nbdd_tls_direction {
  uint8_t key[32];
  uint8_t iv[12];
  uint64_t sequence;		/* of the next record */
};

/* How to go on with a TLS connection where the library stopped. */
struct nbdd_tls_state {
  uint16_t version;		/* 0x0303: TLS 1.2, 0x0304: TLS 1.3 */
  uint16_t cipher;		/* enum nbdd_tls_cipher */
  uint8_t key_len;		/* bytes used of key */
  uint8_t iv_len;		/* bytes used of iv: 4 for AES-GCM in TLS 1.2, else 12 */
  struct nbdd_tls_direction send, receive;
};

/* Bytes in memory; NULL: none. */
struct nbdd_tls_data {
  void *data;
  size_t size;
};

/* Keys and certificates of a TLS client, in memory. */
struct nbdd_tls_credentials {
  char *where;			/* where they come from, for messages; NULL: the system's */
  struct nbdd_tls_data ca, crl, certificate, key;	/* PEM */
  char *username;		/* of the pre-shared key */
  struct nbdd_tls_data psk;	/* its hexadecimal digits */
};

/* What is known of a TLS connection; text is escaped. */
struct nbdd_tls_info {
  uint16_t version;		/* as above */
  char cipher[32];		/* such as "AES-256-GCM" */
  char peer[256];		/* names in the server's certificate; "" without one */
  int64_t peer_expires;		/* seconds since 1970; 0: no certificate */
  int64_t own_expires;		/* of the client certificate, when it was asked for; else 0 */
};

'''


def own_header():
    out = BANNER + OWN_TOP
    for call in CALLS:
        if call.own:
            title, text, _ = TEXTS[call.name]
            text = f'{title[0].upper()}{title[1:]}.  {text}'
            text = '/* ' + '\n * '.join(textwrap.wrap(' '.join(text.split()), 84)) + ' */'
            out += f'{text}\n{declaration(call)}\n'
    return out + HEADER_END.replace('LIBNBD_H', 'NBDD_H')


def version_map():
    out, before = '', ''
    for node in NODES + [OWN_NODE]:
        names = [c.symbol for c in CALLS
                 if (OWN_NODE if c.own else 'LIBNBD_' + c.node) == node]
        tail = ' local: *;' if not before else ''
        body = ' '.join(f'{n};' for n in sorted(names))
        out += f'{node} {{ global: {body}{tail} }}{before};\n'
        before = ' ' + node
    return out


def calls_header():
    out = BANNER + ('#pragma once\n\n#include <libnbd.h>\n#include <nbdd.h>\n\n'
                    f'#define API_VERSION "{VERSION}"\n'
                    f'#define API_VERSION_EXTRA "{VERSION_EXTRA}"\n\n')
    return out + ''.join(f'{prototype(c, internal=True)};\n' for c in CALLS)


def failure(returns):
    if returns.endswith('*'):
        return 'NULL'
    return '-1'


def plain_call(call):
    """A call that takes no lock and cannot fail."""
    args = ', '.join(([] if call.has('nohandle') else ['h'])
                     + [a.name for a in arguments(call)])
    ret = '' if call.returns == 'void' else 'return '
    return f'PUBLIC {prototype(call)}\n{{\n\t{ret}api_{call.name}({args});\n}}\n\n'


def states_mask(call):
    if call.states == 'any':
        return 'STATES_ANY'
    return ' | '.join('STATES_' + s.upper() for s in call.states.split(','))


def checked_call(call):
    args = arguments(call)
    handle = 'NULL' if call.has('nohandle') else 'h'
    lock = not call.has('nolock')
    log = lock and not call.has('noerror')
    space = '' if call.returns.endswith('*') else ' '
    words = [a.shown() for a in args]
    checks = [c for c in (a.check() for a in args) if c]
    if call.states != 'any':
        checks.insert(0, f'call_permitted({handle}, &call)')
    inner = ', '.join(([] if call.has('nohandle') else ['h']) +
                      ['&' + a.name if a.callback else a.name for a in args])
    out = f'PUBLIC {prototype(call)}\n{{\n'
    if lock or checks:
        out += (f'\tstatic const struct call call = {{ "{call.symbol}", '
                f'{states_mask(call)} }};\n')
    if call.returns != 'void':
        out += f'\t{call.returns}{space}ret = {failure(call.returns)};\n'
    out += '\n'
    if lock:
        out += '\tcall_enter(h, &call);\n'
    if log:
        fmt = ''.join(' ' + w[0] for w in words)
        exprs = ''.join(', ' + w[1] for w in words)
        out += (f'\tif (call_logged(h))\n\t\tdebug_log(h, "enter:{fmt}"{exprs});\n')
    assign = '' if call.returns == 'void' else 'ret = '
    if checks:
        out += '\tif (' + ' &&\n\t    '.join(checks) + ')\n\t'
    out += f'\t{assign}api_{call.name}({inner});\n'
    out += initialize(call, args)
    if log:
        out += '\tif (call_logged(h))\n\t\t' + leave(call) + '\n'
    if lock:
        out += '\tcall_leave(h);\n'
    for a in args:
        if a.callback:
            out += f'\tCALLBACK_FREE({a.name});\n'
    return out + ('' if call.returns == 'void' else '\treturn ret;\n') + '}\n\n'


def initialize(call, args):
    """Memory that was to be read to, when a check has failed; later it is the session's."""
    if any(a.kind == 'out' for a in args):
        return '\telse\n\t\tcommand_not_begun(h, buf, count);\n'
    if call.name.endswith('preadv'):
        return '\telse\n\t\tcommand_not_begun_vector(h, iov, iovcnt);\n'
    return ''


def leave(call):
    kinds = {'char *': 'string', 'const char *': 'string', 'struct nbdd_uri *': 'pointer',
             'struct nbdd_tls_credentials *': 'pointer'}
    kind = kinds.get(call.returns, 'number')
    return f'call_log_leave_{kind}(h, ret);'


def calls():
    out = BANNER + ('#define LIBNBD_ATTRIBUTE_NONNULL(...)\n'
                    '#include "lib/api/call.h"\n\n#include <inttypes.h>\n\n'
                    '#define PUBLIC __attribute__((visibility("default")))\n\n')
    for call in CALLS:
        if call.has('noerror') and call.has('nolock'):
            out += plain_call(call)
        else:
            out += checked_call(call)
    return out


OUTPUTS = {'header': header, 'own-header': own_header, 'map': version_map,
           'calls-header': calls_header, 'calls': calls}

if __name__ == '__main__':
    what, path = sys.argv[1:]
    text = OUTPUTS[what]()
    with open(path, 'w', encoding='utf-8') as f:
        f.write(re.sub(r'[ \t]+\n', '\n', text))
