"""One session of the scripted NBD server: Script says how it goes, Session carries it out.

See script_server for the whole.
"""
import collections
import struct
import threading
import time

from . import nbd_proto as p
from .nbd_proto import Chunk, Cmd, Err, Flag, Info, Opt, Rep

Option = collections.namedtuple("Option", "number data")
Request = collections.namedtuple("Request", "flags type cookie offset length payload")
Greeting = collections.namedtuple("Greeting", "")
ClientFlags = collections.namedtuple("ClientFlags", "flags")

MAX_OPTION_DATA = 1 << 20
MAX_PAYLOAD = 64 << 20


class HangUp(Exception):
    """The session is over: close the connection."""


class Memory:
    """A sparse array of bytes of any size."""
    PAGE = 65536

    def __init__(self):
        self.pages = {}

    def _spans(self, offset, length):
        end = offset + length
        while offset < end:
            number, start = divmod(offset, self.PAGE)
            count = min(self.PAGE - start, end - offset)
            yield number, start, count
            offset += count

    def read(self, offset, length):
        zeroes = bytes(self.PAGE)
        return b"".join(bytes(self.pages.get(n, zeroes)[s:s + c])
                        for n, s, c in self._spans(offset, length))

    def write(self, offset, data):
        at = 0
        for number, start, count in self._spans(offset, len(data)):
            page = self.pages.setdefault(number, bytearray(self.PAGE))
            page[start:start + count] = data[at:at + count]
            at += count

    def zero(self, offset, length):
        for number, page in self.pages.items():
            start = max(offset - number * self.PAGE, 0)
            end = min(offset + length - number * self.PAGE, self.PAGE)
            if start < end:
                page[start:end] = bytes(end - start)


def one_extent(offset, length):
    """Block status of an export that is all data."""
    return [(length, 0)]


class Export:
    """What a server exports.  CONTEXTS: {meta context: extents(offset, length)}."""

    def __init__(self, size=1 << 20, flags=Flag.ALL_COMMANDS, description=None,
                 block_size=None, contexts=None, memory=None, canonical_name=None):
        self.size, self.flags, self.description = size, flags, description
        self.block_size = block_size            # (minimum, preferred, maximum) or None
        self.contexts = {"base:allocation": one_extent} if contexts is None else contexts
        self.memory = memory or Memory()
        self.canonical_name = canonical_name


class Script:
    """How a connection goes.

    exports        {name: Export}
    style          "fixed", "newstyle" or "oldstyle"
    structured, extended     whether the server knows these options
    greeting       piece sent on connection
    client_flags   piece after the client's flags (usually nothing is sent)
    option, any_option       pieces by option number, and for all without one
    command, any_command     pieces by command type, and for all without one
    segment        bytes handed to one send(2); 1 sends byte by byte
    limit_seconds  life of a session at most; limit_bytes of what it sends
    """

    def __init__(self, exports=None, style="fixed", structured=True, extended=False,
                 greeting=None, client_flags=None, option=None, any_option=None,
                 command=None, any_command=None, segment=None, limit_seconds=20,
                 limit_bytes=1 << 30):
        if exports is None:
            exports = {"": Export()}
        elif isinstance(exports, Export):
            exports = {"": exports}
        self.exports, self.style = exports, style
        self.structured, self.extended = structured, extended
        self.greeting, self.client_flags = greeting, client_flags
        self.option, self.any_option = option or {}, any_option
        self.command, self.any_command = command or {}, any_command
        self.segment = segment
        self.limit_seconds, self.limit_bytes = limit_seconds, limit_bytes

    def piece_for(self, message):
        if isinstance(message, Option):
            return self.option.get(message.number, self.any_option)
        if isinstance(message, Request):
            return self.command.get(message.type, self.any_command)
        return self.greeting if isinstance(message, Greeting) else self.client_flags


class Session:
    """One connection: what the client said so far, and the means to answer."""

    def __init__(self, server, sock, script):
        self.server, self.sock, self.script = server, sock, script
        self.flags = None               # the client's handshake flags
        self.options, self.requests = [], []
        self.received = self.sent = 0   # bytes
        self.structured = self.extended = False
        self.export = None              # set once in the transmission phase
        self.contexts = {}              # {id: meta context name}
        self.ended = False
        self.deadline = time.monotonic() + script.limit_seconds
        self.send_lock = threading.Lock()

    # Bytes -------------------------------------------------------------------------

    def _arm(self):
        left = self.deadline - time.monotonic()
        if left <= 0 or self.server.stopping:
            raise HangUp
        self.sock.settimeout(left)

    def receive(self, n):
        parts = []
        while n:
            self._arm()
            part = self.sock.recv(min(n, 1 << 20))
            if not part:
                raise HangUp
            self.received += len(part)
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def send(self, data):
        step = self.script.segment or len(data) or 1
        with self.send_lock:
            for at in range(0, len(data), step):
                self._arm()
                self.sock.sendall(data[at:at + step])
                self.sent += len(data[at:at + step])
                if self.sent > self.script.limit_bytes:
                    raise HangUp

    def send_later(self, seconds, data):
        """Send DATA after SECONDS; other replies may overtake it."""
        def send():
            if not self.server.stop_event.wait(seconds):
                try:
                    self.send(data)
                except (HangUp, OSError):
                    pass
        threading.Thread(target=send, daemon=True).start()

    def swallow_until_end(self):
        """Say nothing more; go on reading until the client leaves."""
        while True:
            self._arm()
            part = self.sock.recv(1 << 16)
            if not part:
                raise HangUp
            self.received += len(part)

    def deaf_until_end(self):
        """Neither say nor read anything more."""
        self.server.stop_event.wait(max(0, self.deadline - time.monotonic()))
        raise HangUp

    # The session -------------------------------------------------------------------

    def run(self):
        try:
            self._answer(Greeting())
            if self.script.style == "oldstyle":
                self.export = self.script.exports[""]
            else:
                (flags,) = struct.unpack(">I", self.receive(4))
                self.flags = flags
                self._answer(ClientFlags(flags))
            while self.export is None:
                self._answer(self._next_option())
            while True:
                self._answer(self._next_request())
        except (HangUp, OSError):
            pass
        finally:
            self.ended = True
            self.sock.close()
            self.server.happened("end", {})

    def _answer(self, message):
        piece = self.script.piece_for(message)
        if piece is None:
            reply = self.usual(message)
        else:
            reply = piece(self, message) if callable(piece) else piece
        if reply:
            self.send(reply)
        if isinstance(message, Request) and message.type == Cmd.DISC:
            raise HangUp
        if isinstance(message, Option) and message.number == Opt.ABORT:
            raise HangUp

    def _next_option(self):
        magic, number, length = struct.unpack(">8sII", self.receive(16))
        if magic != p.OPTION_MAGIC or length > MAX_OPTION_DATA:
            raise HangUp
        message = Option(number, self.receive(length))
        self.options.append(message)
        self.server.happened("option", {"number": number, "data": message.data.hex()})
        return message

    def _next_request(self):
        if self.extended:
            magic, flags, type_, cookie, offset, length = struct.unpack(
                ">IHHQQQ", self.receive(32))
            has_payload = flags & p.CmdFlag.PAYLOAD_LEN
        else:
            magic, flags, type_, cookie, offset, length = struct.unpack(
                ">IHHQQI", self.receive(28))
            has_payload = type_ == Cmd.WRITE
        expected = p.EXTENDED_REQUEST_MAGIC if self.extended else p.REQUEST_MAGIC
        if magic != expected or (has_payload and length > MAX_PAYLOAD):
            raise HangUp
        payload = self.receive(length) if has_payload else b""
        message = Request(flags, type_, cookie, offset, length, payload)
        self.requests.append(message)
        self.server.happened("request", {"type": type_, "flags": flags, "cookie": cookie,
                                         "offset": offset, "length": length})
        return message

    # What a correct server says ------------------------------------------------------

    def usual(self, message):
        if isinstance(message, Greeting):
            return self._usual_greeting()
        if isinstance(message, ClientFlags):
            return b""
        if isinstance(message, Option):
            return self._usual_option(message)
        return self._usual_reply(message)

    def _usual_greeting(self):
        if self.script.style == "oldstyle":
            export = self.script.exports[""]
            return p.oldstyle_hello(export.size, export.flags)
        fixed = p.FLAG_FIXED_NEWSTYLE if self.script.style == "fixed" else 0
        return p.newstyle_hello(fixed | p.FLAG_NO_ZEROES)

    def _usual_option(self, option):
        handler = {
            Opt.EXPORT_NAME: self._export_name, Opt.ABORT: self._abort,
            Opt.LIST: self._list, Opt.INFO: self._info, Opt.GO: self._info,
            Opt.STRUCTURED_REPLY: self._structured_reply,
            Opt.LIST_META_CONTEXT: self._meta, Opt.SET_META_CONTEXT: self._meta,
            Opt.EXTENDED_HEADERS: self._extended_headers,
        }.get(option.number)
        if self.script.style == "newstyle" and option.number != Opt.EXPORT_NAME:
            raise HangUp                # what unfixed servers did
        if handler is None:
            return p.option_reply(option.number, Rep.ERR_UNSUP)
        return handler(option)

    def _export_name(self, option):
        self.export = self.script.exports.get(option.data.decode("utf8", "replace"))
        if self.export is None or self.extended:
            raise HangUp
        zeroes = b"" if self.flags & p.FLAG_NO_ZEROES else p.RESERVED_ZEROES
        return struct.pack(">QH", self.export.size, self.export.flags) + zeroes

    def _abort(self, option):
        return p.option_reply(option.number, Rep.ACK)

    def _list(self, option):
        servers = [p.rep_server(name.encode(), (e.description or "").encode())
                   for name, e in self.script.exports.items()]
        return b"".join(servers) + p.option_reply(Opt.LIST, Rep.ACK)

    def _info(self, option):
        number = option.number
        name, wanted = p.parse_go(option.data)
        export = self.script.exports.get(name.decode("utf8", "replace"))
        if export is None:
            return p.option_reply(number, Rep.ERR_UNKNOWN, b"no such export")
        if number == Opt.GO:
            self.export = export
        reply = p.info_export(number, export.size, export.flags)
        if export.block_size:
            reply += p.info_block_size(number, *export.block_size)
        if Info.NAME in wanted:
            canonical = export.canonical_name
            reply += p.info_text(number, Info.NAME,
                                 name if canonical is None else canonical.encode())
        if Info.DESCRIPTION in wanted and export.description is not None:
            reply += p.info_text(number, Info.DESCRIPTION, export.description.encode())
        return reply + p.option_reply(number, Rep.ACK)

    def _structured_reply(self, option):
        if not self.script.structured:
            return p.option_reply(option.number, Rep.ERR_UNSUP)
        self.structured = True
        return p.option_reply(option.number, Rep.ACK)

    def _extended_headers(self, option):
        if not self.script.extended:
            return p.option_reply(option.number, Rep.ERR_UNSUP)
        self.extended = self.structured = True
        return p.option_reply(option.number, Rep.ACK)

    def _meta(self, option):
        name, queries = p.parse_meta(option.data)
        export = self.script.exports.get(name.decode("utf8", "replace"))
        if not self.structured:
            return p.option_reply(option.number, Rep.ERR_INVALID)
        if export is None:
            return p.option_reply(option.number, Rep.ERR_UNKNOWN)
        setting = option.number == Opt.SET_META_CONTEXT
        found = [c for c in export.contexts if not (queries or setting) or
                 any(self._matches(c, q.decode(), setting) for q in queries)]
        if setting:
            self.contexts = dict(enumerate(found, 1))
        return b"".join(p.rep_meta(option.number, i if setting else 0, c.encode())
                        for i, c in enumerate(found, 1)) + p.option_reply(option.number,
                                                                          Rep.ACK)

    @staticmethod
    def _matches(context, query, setting):
        if query.endswith(":") and not setting:
            return context.startswith(query)
        return context == query

    def reply(self, request, chunks):
        """The reply made of [(type, payload), ...], in the form that was negotiated."""
        out = []
        for i, (type_, payload) in enumerate(chunks):
            flags = p.REPLY_FLAG_DONE if i == len(chunks) - 1 else 0
            if self.extended:
                out.append(p.extended_chunk(request.cookie, request.offset, type_, payload,
                                            flags))
            else:
                out.append(p.chunk(request.cookie, type_, payload, flags))
        return b"".join(out)

    def error_reply(self, request, error, text=b""):
        if self.structured:
            return self.reply(request, [(Chunk.ERROR, p.error_payload(error, text))])
        return p.simple_reply(request.cookie, error)

    def _done(self, request):
        if self.extended:
            return self.reply(request, [(Chunk.NONE, b"")])
        return p.simple_reply(request.cookie)

    def _usual_reply(self, request):
        if request.type == Cmd.DISC:
            return b""
        error = self._objection(request)
        if error:
            return self.error_reply(request, error)
        memory, offset, length = self.export.memory, request.offset, request.length
        if request.type == Cmd.READ:
            data = memory.read(offset, length)
            if self.structured and not data:
                return self.reply(request, [(Chunk.NONE, b"")])
            if self.structured:
                return self.reply(request, [(Chunk.OFFSET_DATA, p.offset_data(offset, data))])
            return p.simple_reply(request.cookie, 0, data)
        if request.type == Cmd.BLOCK_STATUS:
            return self.block_status(request)
        if request.type == Cmd.WRITE:
            memory.write(offset, request.payload)
        elif request.type in (Cmd.TRIM, Cmd.WRITE_ZEROES):
            memory.zero(offset, length)
        return self._done(request)

    def _objection(self, request):
        if request.type not in p.names_of(Cmd) or request.type == Cmd.RESIZE:
            return Err.EINVAL
        changes = request.type in (Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES)
        if changes and self.export.flags & Flag.READ_ONLY:
            return Err.EPERM
        if request.offset + request.length > self.export.size and request.type != Cmd.FLUSH:
            if not (request.type == Cmd.BLOCK_STATUS and request.payload):
                return Err.ENOSPC if changes else Err.EINVAL
        if request.type == Cmd.BLOCK_STATUS and not self.contexts:
            return Err.EINVAL
        return 0

    def block_status(self, request, wanted=None):
        """Block status of the contexts with ids WANTED (all: None; payload: those in it)."""
        length = request.length
        if request.payload:
            length, *wanted = struct.unpack(f">Q{(len(request.payload) - 8) // 4}I",
                                            request.payload)
        chunks = []
        for id_, name in self.contexts.items():
            if wanted is not None and id_ not in wanted:
                continue
            extents = self.export.contexts[name](request.offset, length)
            if request.flags & p.CmdFlag.REQ_ONE:
                extents = extents[:1]
            chunks.append((Chunk.BLOCK_STATUS_EXT, p.status_ext_payload(id_, extents))
                          if self.extended else
                          (Chunk.BLOCK_STATUS, p.status_payload(id_, extents)))
        return self.reply(request, chunks or [(Chunk.NONE, b"")])
