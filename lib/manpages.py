#!/usr/bin/python3
"""The library's manual pages from api.py and api_text.py:  manpages.py DIRECTORY"""
import os
import re
import sys
import textwrap

from api import CALLBACKS, CALLS, ENUMS, FLAGS, VERSION
from api_text import TEXTS
from gen import PHRASES, arguments, callback_type, prototype

ARGUMENTS = {
    'count': 'Bytes.', 'offset': 'Bytes from the start of the export.',
    'timeout': 'Milliseconds; \u22121: without end, 0: not at all.',
    'cookie': 'What the call that issued the request returned.',
    'hostname': 'A name or a numeric address.', 'port': 'A name or a number.',
    'unixsocket': 'Its path.', 'cid': 'The context id; 2 is the host.',
    'argv': 'Command and arguments, ended by NULL.', 'uri': 'The URI.',
    'queries': 'Strings, ended by NULL.', 'contexts': 'Names of contexts, ended by NULL.',
    'addrlen': 'Bytes at addr.', 'n': 'How many addresses, 1 to 64.',
    'iov': 'Buffers, which must live until the request is complete.',
    'iovcnt': 'How many buffers.', 'sock': 'The socket.', 'fd': 'The descriptor.',
    'signum': 'The signal.', 'i': 'Which one, from 0.', 'addr': 'The socket address.',
    'addresses': 'In order of preference.', 'u': 'What nbdd_uri_parse(3) returned.',
    'fds': 'Where the sockets go.', 'nr_fds': 'How many connections, 1 to 64.',
    'late': 'Milliseconds; \u22121: without end.',
    'dir': 'The directory.', 'filename': 'The file.',
}
KINDS = {
    'bool': 'true or false.', 'out': 'Where the data goes, count bytes.',
    'in': 'The data, count bytes.', 'str': 'A string.',
}
# What may be in `flags` of a request.
COMMAND_FLAGS = {
    'pread_structured': ['DF'], 'pwrite': ['FUA', 'PAYLOAD_LEN'], 'pwritev': ['FUA'],
    'trim': ['FUA'], 'zero': ['FUA', 'NO_HOLE', 'FAST_ZERO'],
    'block_status': ['REQ_ONE'], 'block_status_64': ['REQ_ONE'],
    'block_status_filter': ['REQ_ONE', 'PAYLOAD_LEN'],
}
SETUP = '''struct nbd_handle *h = nbd_create ();

if (h == NULL || nbd_connect_uri (h, "nbd://localhost") == -1) {
  fprintf (stderr, "%s\\n", nbd_get_error ());
  exit (EXIT_FAILURE);
}'''
AIO = '''static int done (void *data, int *error)
{
  if (*error)
    fprintf (stderr, "failed: %s\\n", strerror (*error));
  return 1;     /* retire the command */
}

nbd_completion_callback cb = { .callback = done };
CALL
while (nbd_aio_in_flight (h) > 0)
  if (nbd_poll (h, -1) == -1)
    fprintf (stderr, "%s\\n", nbd_get_error ());'''
OPT = '''nbd_set_opt_mode (h, true);
if (nbd_connect_uri (h, "nbd://localhost") == -1)
  fprintf (stderr, "%s\\n", nbd_get_error ());
CALL'''


def escape(text):
    text = text.replace('\\', '\\e').replace('-', '\\-').replace('\u2212', '\\-')
    return re.sub(r'^([.\'])', r'\\&\1', text, flags=re.M)


def paragraphs(text):
    """Troff for paragraphs; references to pages in bold."""
    out = []
    for part in re.split(r'\n\s*\n', text.strip()):
        part = escape(' '.join(part.split()))
        part = re.sub(r'\b(nbdd?_\w+|libnbd|sd_listen_fds)\((\d)\)', r'\\fB\1\\fR(\2)', part)
        part = re.sub(r'\b((?:LIB)?NBD_[A-Z0-9_]+[A-Z0-9])\b', r'\\fB\1\\fR', part)
        out.append('\n'.join(textwrap.wrap(part, 90, break_on_hyphens=False)))
    return '\n.PP\n'.join(p for p in out if p)


def verbatim(text):
    return '.nf\n' + escape(text) + '\n.fi'


def argument_text(call, a):
    base, _, table = a.kind.partition('.')
    if a.kind == 'cmdflags':
        names = COMMAND_FLAGS.get(call.name.replace('aio_', ''), [])
        flags = ', '.join('LIBNBD_CMD_FLAG_' + n for n in names)
        return f'0, or a sum of {flags}.' if names else '0.'
    if base == 'enum':
        return 'One of ' + ', '.join(f'LIBNBD_{table.upper()}_{w}'
                                     for w, _ in ENUMS[table]) + '.'
    if base == 'flags':
        return '0, or a sum of ' + ', '.join(f'LIBNBD_{table.upper()}_{w}'
                                             for w, _ in FLAGS[table]) + '.'
    if a.callback == 'completion':
        return 'Called when it is over; may be NBD_NULL_COMPLETION.'
    if a.callback:
        return 'Called as described above, with the handle locked.'
    return ARGUMENTS.get(a.name) or KINDS.get(a.kind) or 'The value.'


def returned(call):
    if call.returns == 'void':
        return 'Nothing.'
    if 'noerror' in call.marks:
        return {'int': 'The value, 0 for no.', 'const char *':
                'A string that must not be freed.'}.get(call.returns, 'The value.')
    return {
        'char *': 'A string for the caller to free, or NULL on failure.',
        'const char *': 'A string that must not be freed, or NULL on failure.',
        'struct nbd_handle *': 'The handle, or NULL on failure.',
        'struct nbdd_uri *': 'The parts, or NULL on failure.',
    }.get(call.returns, 'A cookie, 1 or more, or \u22121 on failure.'
          if call.returns == 'int64_t' and call.name.startswith('aio_')
          and 'peek' not in call.name else 'The number, or \u22121 on failure.'
          if call.returns in ('int64_t', 'ssize_t')
          else '1 for yes, 0 for no, or \u22121 on failure.'
          if re.match(r'(aio_)?(is|can|supports|get)_', call.name)
          else '0, or more where it says so above, or \u22121 on failure.')


def errors(call):
    lines = []
    if call.states != 'any':
        phrase = ', or '.join(PHRASES[s] for s in call.states.split(','))
        lines.append(('ENOTCONN, EINVAL', f'The handle must be {phrase}; ENOTCONN when it is '
                      'newly created, else EINVAL.'))
    args = arguments(call)
    if any(a.nonnull() or (a.callback and a.callback != 'completion') for a in args):
        lines.append(('EFAULT', 'A pointer or callback is NULL that must not be.'))
    if any(a.kind.startswith(('enum', 'flags')) for a in args):
        lines.append(('EINVAL', 'A value or flag is not known.'))
    if any(a.kind == 'cmdflags' for a in args) and call.name != 'aio_disconnect':
        lines += [('EINVAL, EPERM, ENOSPC, ERANGE, ENOTSUP',
                   'The request does not fit the export or the server, see '
                   'nbd_set_strict_mode(3).')]
        if not call.name.startswith('aio_'):
            lines.append(('Others', 'What the server reported, or what happened to the '
                          'connection.'))
    if 'noerror' not in call.marks:
        lines.append(('ENOMEM', 'There is no memory.'))
    return lines


def example(call):
    args = ', '.join(['h'] * (not call.has('nohandle')) + [
        'cb' if a.callback == 'completion' else a.name for a in arguments(call)])
    use = f'{call.symbol} ({args})'
    if call.name in ('create', 'close', 'connect_uri'):
        return SETUP + '\n\nnbd_shutdown (h, 0);\nnbd_close (h);'
    if call.name.startswith('aio_') and 'cb.completion' in call.args and 'opt' not in call.name:
        return AIO.replace('CALL', f'if ({use} == -1)\n'
                           '  fprintf (stderr, "%s\\n", nbd_get_error ());')
    if call.states == 'negotiating':
        return OPT.replace('CALL', f'if ({use} == -1)\n'
                           '  fprintf (stderr, "%s\\n", nbd_get_error ());')
    if call.returns.endswith('*') and 'noerror' not in call.marks:
        return (f'{call.returns}value = {use};\n\nif (value == NULL)\n'
                '  fprintf (stderr, "%s\\n", nbd_get_error ());')
    if 'noerror' in call.marks or call.returns == 'void':
        return f'{use};'
    return f'if ({use} == -1)\n  fprintf (stderr, "%s\\n", nbd_get_error ());'


def page(call):
    title, text, protocol = TEXTS[call.name]
    args = arguments(call)
    callbacks = [callback_type(a.callback) for a in args if a.callback]
    out = [f'.\\" Made by lib/manpages.py.\n.TH {call.symbol} 3 "" "libnbd {VERSION}" '
           '"NBD client library"', '.SH NAME', f'{call.symbol} \\- {escape(title)}',
           '.SH SYNOPSIS', verbatim(f'#include <{"nbdd" if call.own else "libnbd"}.h>\n\n'
                                    + ''.join(c + '\n' for c in callbacks)
                                    + prototype(call) + ';')]
    out += ['.SH DESCRIPTION', paragraphs(text or title[0].upper() + title[1:] + '.')]
    if args:
        out.append('.SH ARGUMENTS')
        for a in args:
            out += ['.TP', f'.I {a.name}', paragraphs(argument_text(call, a))]
    out += ['.SH RETURN VALUE', paragraphs(returned(call))]
    rows = errors(call)
    if rows:
        out += ['.SH ERRORS', 'See \\fBnbd_get_error\\fR(3) and \\fBnbd_get_errno\\fR(3).']
        for name, why in rows:
            out += ['.TP', f'.B {name}', paragraphs(why)]
    if protocol:
        out += ['.SH PROTOCOL', paragraphs(f'Section \u201c{protocol}\u201d of the NBD protocol '
                                           'document.')]
    out += ['.SH EXAMPLE', verbatim(example(call)), '.SH SEE ALSO',
            '\\fBlibnbd\\fR(3), \\fBnbd_create\\fR(3)']
    return '\n'.join(out) + '\n'


OVERVIEW = '''libnbd is a client of the Network Block Device protocol: it reads and writes block
devices that a server exports.  A handle, made by nbd_create(3), stands for one connection.

This is nbdd's library.  It has the interface of libnbd, so that programs made for that run on
it, and additions of its own in <nbdd.h>.  Link with \\-lnbd, or by pkg-config libnbd.'''

SECTIONS = [
    ('STATES', '''A handle is created, connecting, in opt mode negotiating, then connected, at last
closed or dead.  Each call is permitted in some of these states, which its page names; elsewhere
it fails with ENOTCONN or EINVAL.  Only nbd_close(3) is always possible.'''),
    ('ERRORS', '''A call that fails returns \u22121 or NULL.  nbd_get_error(3) tells why in words,
nbd_get_errno(3) as an errno; both are of the calling thread.'''),
    ('SYNCHRONOUS AND ASYNCHRONOUS CALLS', '''nbd_pread(3) and its kin wait for the server.
nbd_aio_pread(3) and its kin return a cookie; any number of requests may be in flight.  Requests
that are issued while others are in flight gather, and leave together, in one system call, at the
next nbd_poll(3), nbd_aio_notify_read(3) or nbd_aio_notify_write(3).  nbd_poll(3) acts on all
replies that have come.

A program with a loop of its own polls nbd_aio_get_fd(3) for what nbd_aio_get_direction(3) says
and notifies the handle.  Both may change with each call.'''),
    ('CALLBACKS', '''A callback is a structure of function, user_data and free, passed by value.
free, unless NULL, is called exactly once, after the last use, also when the call fails; those of
an asynchronous request when it is retired: by nbd_aio_command_completed(3), by a completion
callback that returns 1, or by nbd_close(3).
Callbacks are called from calls on the handle, with it locked: they must not use the same handle,
but for calls that take no lock, such as nbd_aio_in_flight(3).'''),
    ('THREADS', '''A handle may be used by several threads at once.  A call that waits for the
server does not keep others from working: a request that is made while another thread waits in
the library is sent at once, and nbd_aio_ calls then return when the socket has taken it.  A
thread that waits by itself, with poll(2), learns from nbd_aio_get_direction(3) alone that
there is something to send: when another thread makes big requests, or makes them while others
are in flight, wake it.  What a thread sees as the last error is its own.'''),
    ('LIMITS', '''Export and context names: 4096 bytes.  One read or write: 64 MiB.  Exports in a
list: 10,000.  Extents in one chunk: 1,048,576.  A server that goes beyond is disconnected
from.'''),
    ('ENVIRONMENT', '''LIBNBD_DEBUG=1 logs what handles do to standard error.'''),
]


def overview():
    out = [f'.\\" Made by lib/manpages.py.\n.TH libnbd 3 "" "libnbd {VERSION}" '
           '"NBD client library"', '.SH NAME', 'libnbd \\- client of the Network Block Device '
           'protocol', '.SH SYNOPSIS', verbatim(f'#include <libnbd.h>\n\n{SETUP}'),
           '.SH DESCRIPTION', paragraphs(OVERVIEW.replace('\\-', '-'))]
    for title, text in SECTIONS:
        out += [f'.SH {title}', paragraphs(text)]
    out.append('.SH CALLS')
    for call in CALLS:
        out += ['.TP', f'\\fB{call.symbol}\\fR(3)', escape(TEXTS[call.name][0])]
    out.append('.SH CALLBACK TYPES')
    out.append(verbatim('\n'.join(callback_type(n) for n in CALLBACKS)))
    return '\n'.join(out) + '\n'


def names():
    """The pages' file names."""
    return ['libnbd.3'] + [c.symbol + '.3' for c in CALLS]


if __name__ == '__main__':
    directory = sys.argv[1]
    os.makedirs(directory, exist_ok=True)
    for name, text in [('libnbd', overview())] + [(c.symbol, page(c)) for c in CALLS]:
        with open(os.path.join(directory, name + '.3'), 'w', encoding='utf-8') as f:
            f.write(text)
