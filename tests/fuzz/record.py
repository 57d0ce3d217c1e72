"""Make the corpus of the fuzz targets of the library: what real servers say.

    python3 -m tests.fuzz.record        (at the top of the tree, after a build)

For fuzz_lib_session and fuzz_lib_replies a client does what a plan says (lib_client.h), on a
server through a proxy, which notes who said what; from that come the pieces of input.
"""
import os
import pathlib
import re
import selectors
import socket
import struct
import subprocess
import tempfile
import threading

from tests.harness import nbd_proto as p
from tests.harness.paths import BUILD
from tests.harness.proc import Host
from tests.harness.script_server import Export, Script, ScriptServer
from tests.harness.servers import NbdServer, Nbdkit, QemuNbd

HERE = pathlib.Path(__file__).parent
CORPUS = HERE / 'corpus'
MARK = b'\xa5\xa5|'

# Bits of the plan's settings, first and second byte.
OPT_MODE, NO_STRUCTURED, NO_EXTENDED, FULL_INFO = 1, 2, 4, 8
ONE_CONTEXT, TWO_CONTEXTS, DEBUG = 1 << 8, 2 << 8, 32 << 8


def numbers():
    """{name of a call: its number in a plan}."""
    found = {}
    for file, base in (('lib_calls.c', 0), ('lib_calls_opt.c', 0x80)):
        table = re.search(r'calls\[\].*?= \{(.*?)\};', (HERE / file).read_text(), re.S).group(1)
        found |= {name: base + i for i, name in enumerate(re.findall(r'\w+', table))}
    return found


def plan(settings, calls):
    """The bytes for calls as `name` or `name:argument`."""
    number, out = numbers(), struct.pack('<H', settings)
    for call in calls.split():
        name, _, argument = call.partition(':')
        out += bytes((number[name], int(argument or '0', 0)))
    return out


class Recorder:
    """A proxy for one connection: `events` are (who, bytes) in order."""

    def __init__(self, directory, target):
        self.path, self.target, self.events = f'{directory}/proxy', target, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        client, _ = self.listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self.target))
        other = {client: ('client', server), server: ('server', client)}
        with selectors.DefaultSelector() as selector, client, server, self.listener:
            for sock in other:
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    who, to = other[key.fileobj]
                    data = key.fileobj.recv(1 << 20)
                    if not data:
                        return
                    self.events.append((who, data))
                    try:
                        to.sendall(data)
                    except OSError:
                        return

    def pieces(self):
        """What the server said between two words of the client."""
        out, last = [], 'client'
        for who, data in self.events:
            if who == 'server' and last == 'server':
                out[-1] += data
            elif who == 'server':
                out.append(data)
            last = who
        return out


def requests(stream):
    """{cookie: (its number, type, length)} of what the client sent."""
    # Oldstyle knows no flags of the client.
    found, at = {}, 0 if stream[:4] == struct.pack('>I', p.REQUEST_MAGIC) else 4
    while at < len(stream):
        if stream[at:at + 8] == p.OPTION_MAGIC:
            at += 16 + struct.unpack_from('>I', stream, at + 12)[0]
            continue
        magic, flags, type_, cookie, _ = struct.unpack_from('>IHHQQ', stream, at)
        extended = magic == p.EXTENDED_REQUEST_MAGIC
        (length,) = struct.unpack_from('>Q' if extended else '>I', stream, at + 24)
        found[cookie] = (len(found), type_, length)
        at += 32 if extended else 28
        if flags & p.CmdFlag.PAYLOAD_LEN or (not extended and type_ == p.Cmd.WRITE):
            at += length
    return found


def message(kind, head, payload, more):
    """A piece of fuzz_lib_replies (its enum kind and marks)."""
    rest = payload.rstrip(b'\0')
    zeroes = min(len(payload) - len(rest), 0xffff)
    control = kind | (0x10 if more else 0)
    if zeroes < 8:
        return bytes([control]) + head + payload
    return bytes([control | 0x20]) + head + struct.pack('>H', zeroes) + payload[:-zeroes]


def one_message(piece, known):
    """(kind, head, payload, length) of the message that PIECE begins with."""
    (magic,) = struct.unpack_from('>I', piece)
    if piece[:16] == p.HELLO_MAGIC + p.OPTION_MAGIC:
        return 1, piece[17:18], b'', 18
    if magic == p.OPTION_REPLY_MAGIC >> 32:
        type_, length = struct.unpack_from('>II', piece, 12)
        return 2, bytes([type_ >> 24 & 0x80 | type_ & 0x7f]), piece[20:20 + length], 20 + length
    if magic == p.SIMPLE_REPLY_MAGIC:
        error, cookie = struct.unpack_from('>IQ', piece, 4)
        number, type_, length = known[cookie]
        end = 16 + (length if type_ == p.Cmd.READ and not error else 0)
        return 3, bytes([number, error]), piece[16:end], end
    if magic in (p.STRUCTURED_REPLY_MAGIC, p.EXTENDED_REPLY_MAGIC):
        extended = magic == p.EXTENDED_REPLY_MAGIC
        flags, type_, cookie = struct.unpack_from('>HHQ', piece, 4)
        (length,) = struct.unpack_from('>Q' if extended else '>I', piece, 24 if extended else 16)
        at = 32 if extended else 20
        head = bytes([known[cookie][0], flags, type_ >> 8 & 0x80 | type_ & 0x7f])
        return 5 if extended else 4, head, piece[at:at + length], at + length
    return 0, b'', piece, len(piece)


def replies(recorder):
    """The pieces for fuzz_lib_replies."""
    known = requests(b''.join(d for who, d in recorder.events if who == 'client'))
    out = []
    for piece in recorder.pieces():
        while piece:
            kind, head, payload, length = one_message(piece, known)
            piece = piece[length:]
            out.append(message(kind, head, payload, bool(piece)))
    return out


def record(name, server, settings, calls):
    the_plan = plan(settings, calls)
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(directory, server.path if hasattr(server, 'path') else server.socket)
        subprocess.run([BUILD / 'tests' / 'lib_record', recorder.path], input=the_plan,
                       check=True, timeout=20)
        recorder.thread.join(20)
    for target, pieces in (('lib_session', recorder.pieces()), ('lib_replies', replies(recorder))):
        os.makedirs(CORPUS / target, exist_ok=True)
        data = MARK.join([b'\0' + the_plan, *pieces])
        if len(data) > 8192:
            print(f'{target}/{name}: {len(data)} bytes are too many')
            continue
        (CORPUS / target / name).write_bytes(data)


COMMANDS = ('s_pread s_pread:1 s_pread_structured:0x40 s_pwrite s_pwrite:0x11 s_flush s_trim '
            's_cache s_zero s_zero:0x11 s_preadv:1 ')
# All replies are in before cookies are used again, so that it plays the same each time.
AIO = ('a_pread a_pread_structured:0x41 a_pwrite:0x80 a_pwritev a_preadv:0x20 a_flush a_zero '
       'poll_some:2 poll_all completed completed a_pread:4 a_pread notify_write poll_all '
       'notify_read ')
STATUS = ('s_block_status s_block_status:0x12 s_block_status_64 a_block_status:0x40 '
          'a_block_status_64:0x40 poll_all ')
OPTIONS = ('o_list:0x40 o_structured o_extended o_list_meta:0x40 o_list_meta:0x51 o_set_meta:0x40 '
           'set_name:1 o_info ')
AIO_OPTIONS = ('ao_list:0x40 poll_all ao_structured poll_all ao_extended poll_all '
               'ao_list_meta:0x40 poll_all ao_set_meta:0x40 poll_all ao_info poll_all ')
READS = ('s_pread s_pread:2 s_pread_structured:0x40 s_pread_structured:0x42 '
         's_pread_structured:0x50 s_preadv s_preadv:2 ')
END = ' shut_down'


WIRE = {
    'simple': p.simple_reply(1, p.Err.EIO),
    'chunk': p.chunk(1, p.Chunk.OFFSET_DATA, p.offset_data(0, bytes(16))),
    'extended': p.extended_chunk(1, 512, p.Chunk.BLOCK_STATUS_EXT,
                                 p.status_ext_payload(1, [(512, 3)])),
    'error': p.error_payload(p.Err.ENOSPC, b'full'),
    'error-offset': p.error_payload(p.Err.EIO, b'bad sector', 4096),
    'option-reply': p.option_reply(p.Opt.GO, p.Rep.INFO, bytes(12)),
    'server': p.rep_server(b'name', b'description'),
    'request': p.request(p.Cmd.WRITE, 1, 512, 4096, p.CmdFlag.FUA),
    'reader': bytes.fromhex('0000 1234 0001 12345678 0002 1234567812345678 0013 61626364'),
}
URIS = (
    'nbd://localhost', 'nbd://example.com:10810/export', 'nbds://alice@[::1]:1/a%20b',
    'nbd+unix:///?socket=/tmp/s', 'nbds+unix://alice@/name?socket=s&tls-psk-file=k.psk',
    'nbd+vsock://3:10809/', 'nbds://h/?tls-certificates=/c;tls-verify-peer=false',
    'nbd://h//x?tls-hostname=other&tls-priority=NORMAL#part', 'nbd+ssh://h/', 'nbd:unix:/x',
    '/tmp/socket', 'http://x', 'nbd://127.0.0.1:99999/', 'nbd+unix:///%ff%00?socket=%2e&socket=b',
)


def simple_seeds():
    rows = [('lib_wire', name, data) for name, data in WIRE.items()]
    rows += [('lib_uri', str(i), uri.encode()) for i, uri in enumerate(URIS)]
    for target, name, data in rows:
        os.makedirs(CORPUS / target, exist_ok=True)
        (CORPUS / target / name).write_bytes(data)


def in_pieces(session, request):
    """A read's reply: half of it a hole, then data in two chunks or, beyond 64 KiB, an error."""
    half, quarter = request.length // 2, request.length // 4
    if request.flags & p.CmdFlag.DF or request.length < 8:
        return session.usual(request)
    chunks = [(p.Chunk.OFFSET_HOLE, p.offset_hole(request.offset, half)),
              (p.Chunk.OFFSET_DATA, p.offset_data(request.offset + half, b'd' * quarter)),
              (p.Chunk.OFFSET_DATA, p.offset_data(request.offset + half + quarter,
                                                  b'e' * (request.length - half - quarter)))]
    if request.offset >= 65536:
        error = p.error_payload(p.Err.EIO, b'text', request.offset + half)
        chunks[2] = (p.Chunk.ERROR_OFFSET, error)
    return b''.join(
        (p.extended_chunk(request.cookie, request.offset, kind, data, flags=i == 2)
         if session.extended else p.chunk(request.cookie, kind, data, flags=i == 2))
        for i, (kind, data) in enumerate(chunks))


def main():
    simple_seeds()
    with Host() as host:
        image = host.path / 'q.qcow2'
        host.sh(f'''qemu-img create -q -f qcow2 {image} 1M
            qemu-img bitmap --add --enable -f qcow2 {image} b
            qemu-io -f qcow2 -c 'w -P 1 64k 64k' -c 'w -P 2 512k 64k' {image}''')
        (host.path / 'plain').write_bytes(bytes(2 << 20))
        kit = Nbdkit(host, ['memory', '2M'])
        names = Nbdkit(host, ['memory', '2M', 'exportname=a', 'exportname=',
                              'exportname-list=explicit'], options=['--filter=exportname'])
        errors = Nbdkit(host, ['memory', '2M', 'error-rate=1'], options=['--filter=error'])
        simple = Nbdkit(host, ['memory', '2M'], options=['--no-sr'])
        old = Nbdkit(host, ['memory', '2M'], options=['-o'])
        qemu = QemuNbd(host, image, format='qcow2', options=['-B', 'b', '-A', '-D', 'text'])
        server = NbdServer(host, {'a': {'exportname': host.path / 'plain', 'trim': 'true',
                                        'flush': 'true', 'fua': 'true'}},
                           generic={'allowlist': 'true'})
        with kit, names, errors, simple, old, qemu, server:
            record('nbdkit', kit, ONE_CONTEXT, COMMANDS + STATUS + END)
            record('nbdkit-aio', kit, ONE_CONTEXT | DEBUG, AIO + END)
            record('nbdkit-options', names, OPT_MODE | NO_STRUCTURED | NO_EXTENDED | FULL_INFO,
                   OPTIONS + 'o_go ' + COMMANDS + END)
            record('nbdkit-aio-options', names, OPT_MODE | NO_STRUCTURED | NO_EXTENDED
                   | ONE_CONTEXT, AIO_OPTIONS + 'ao_go poll_all ' + AIO + END)
            record('nbdkit-errors', errors, ONE_CONTEXT, COMMANDS + STATUS + AIO + END)
            record('nbdkit-simple', simple, 0, COMMANDS + AIO + END)
            record('nbdkit-oldstyle', old, 0, 's_pread s_flush' + END)
            record('nbdkit-abort', names, OPT_MODE, 'o_list:0x40 o_starttls o_abort')
            record('qemu', qemu, TWO_CONTEXTS | FULL_INFO, STATUS + 's_pread s_flush' + END)
            record('qemu-options', qemu, OPT_MODE | TWO_CONTEXTS | FULL_INFO,
                   OPTIONS + 'set_name ao_go poll_all ' + STATUS + END)
            record('nbd-server', server, OPT_MODE | FULL_INFO,
                   'o_list:0x40 o_structured set_name:1 o_info o_go ' + COMMANDS + END)
        contexts = {'base:allocation': lambda offset, length: [(256, 0), (length - 256, 3)],
                    'x:y': lambda offset, length: [(length, 1 << 40)]}
        export = Export(2 << 20, flags=p.Flag.ALL_COMMANDS | p.Flag.BLOCK_STATUS_PAYLOAD,
                        description='text', block_size=(1, 4096, 1 << 20), contexts=contexts)
        with ScriptServer(Script(export, extended=True)) as scripted:
            record('extended', scripted, TWO_CONTEXTS | FULL_INFO, COMMANDS + STATUS + END)
            record('extended-filter', scripted, ONE_CONTEXT, 's_filter s_filter:0x10 ' + AIO + END)
            record('extended-options', scripted, OPT_MODE | NO_STRUCTURED | NO_EXTENDED
                   | ONE_CONTEXT, OPTIONS + 'set_name o_go ' + STATUS + AIO + END)
        for name, extended in (('pieces', False), ('extended-pieces', True)):
            with ScriptServer(Script(export, extended=extended,
                                     command={p.Cmd.READ: in_pieces})) as scripted:
                record(name, scripted, ONE_CONTEXT, READS + 'a_pread a_pread_structured:0x42 '
                       'a_preadv:0x21 poll_all ' + END)


if __name__ == '__main__':
    main()
