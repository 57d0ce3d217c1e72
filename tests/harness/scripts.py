"""Scripts by name, for the command line of script_server and for tests over all of them.

Each row: what the server does, how a correct client takes it, and the script.  EXPECT says
how a client that connects and reads 4 KiB at 0 comes out:
  ok       everything works
  refused  the export is not to be had (the connection may be sound)
  broken   the server breaks the protocol: an error, the connection is over
  closed   the server goes away: an error
  silent   the server says nothing more: only a time limit of the client's ends it
  failed   the command gets an error, the connection stays sound
  brief    everything works, but not for long
"""
import collections
import copy

from . import nbd_proto as p
from . import pieces
from .nbd_proto import Chunk, Cmd, Err, Flag, Info, Opt, Rep
from .script_session import Script

Named = collections.namedtuple("Named", "expect text make")
SCRIPTS = {}
HUGE = 0xFFFFFFF0
LONG_NAME = b"n" * 65536
CONTROL_NAME = b"a\x1b[31mred\x07\r\nb\x00c\x7f\xff"


def script(name, expect, text, **fields):
    """Add a row; FIELDS are Script's, EXPORT changes fields of every export: a value, or
    what to make of the one it has."""
    change = fields.pop("export", {})

    def changed(export):
        export = copy.copy(export)      # the memory stays shared
        for key, value in change.items():
            setattr(export, key, value(getattr(export, key)) if callable(value) else value)
        return export

    def make(exports):
        return Script({name: changed(e) for name, e in exports.items()}, **fields)
    SCRIPTS[name] = Named(expect, text, make)


def go(piece):
    """The piece for GO; INFO likewise."""
    return {Opt.GO: piece, Opt.INFO: piece}


# Well-behaved, of every age.
script("good", "ok", "a correct server")
script("simple", "ok", "no structured replies", structured=False)
script("extended", "ok", "extended headers", extended=True)
script("newstyle", "ok", "newstyle that is not fixed", style="newstyle")
script("oldstyle", "ok", "oldstyle", style="oldstyle")
script("no-go", "ok", "GO and INFO unknown: EXPORT_NAME must do",
       option=go(pieces.option_error(Rep.ERR_UNSUP)))
script("dribble", "ok", "each byte by itself", segment=1)
script("read-only", "ok", "a read-only export",
       export={"flags": Flag.HAS_FLAGS | Flag.READ_ONLY})
script("no-flags", "ok", "an export that can only be read and written",
       export={"flags": Flag.HAS_FLAGS})
script("doubled-size", "ok", "the export at double its size", export={"size": lambda n: n * 2})
script("halved-size", "ok", "the export at half its size", export={"size": lambda n: n // 2})
script("list-forbidden", "ok", "LIST is against the server's policy",
       option={Opt.LIST: pieces.option_error(Rep.ERR_POLICY, b"listing is not allowed")})
script("list-unknown", "ok", "a server too old for LIST",
       option={Opt.LIST: pieces.option_error(Rep.ERR_UNSUP)})
script("slow", "ok", "each command answered after 8 s", limit_seconds=3600,
       any_command=pieces.delayed(8))
script("lasting", "ok", "correct, without the limit of a session's life",
       limit_seconds=1e9, limit_bytes=1 << 60)
script("brief", "brief", "correct, closes after half a second", limit_seconds=0.5)

# Refusals.
script("missing", "refused", "the export is unknown",
       option=go(pieces.option_error(Rep.ERR_UNKNOWN, b"no such export")))
for code in ("POLICY", "INVALID", "PLATFORM", "TLS_REQD", "SHUTDOWN", "BLOCK_SIZE_REQD",
             "TOO_BIG", "EXT_HEADER_REQD"):
    script("refuse-" + code.lower().replace("_", "-"), "refused", f"GO: NBD_REP_ERR_{code}",
           option=go(pieces.option_error(getattr(Rep, "ERR_" + code), b"because of it")))
script("refuse-unnamed", "refused", "GO: an error code that no document knows",
       option=go(pieces.option_error(0x80001234, b"what is this")))
script("refuse-control-text", "refused", "GO: control bytes in the error's text",
       option=go(pieces.option_error(Rep.ERR_POLICY, CONTROL_NAME)))

# Closed, cut and silent at each point.
POINTS = {
    "greeting": lambda piece: {"greeting": piece},
    "client-flags": lambda piece: {"client_flags": piece},
    "options": lambda piece: {"any_option": piece},
    "go": lambda piece: {"option": go(piece)},
    "read": lambda piece: {"command": {Cmd.READ: piece}},
}
for point, at in POINTS.items():
    script("close-at-" + point, "closed", f"closes at: {point}", **at(pieces.hang_up))
    script("stall-at-" + point, "silent", f"silent at: {point}", **at(pieces.stall))
    if point != "client-flags":         # to which nothing is answered
        script("half-at-" + point, "closed", f"half a message, then closes: {point}",
               **at(pieces.half))
        script("half-stall-at-" + point, "silent", f"half a message, then silence: {point}",
               **at(pieces.half_then_stall))

# The handshake, broken.
script("wrong-magic", "broken", "not an NBD server", greeting=b"HTTP/1.1 400 Bad Request\r\n")
script("wrong-second-magic", "broken", "neither oldstyle nor newstyle",
       greeting=p.HELLO_MAGIC + b"NBDMAGIC" + bytes(200))
script("oldstyle-negative-size", "broken", "oldstyle, size above 2^63",
       greeting=p.oldstyle_hello(1 << 63, Flag.HAS_FLAGS), style="oldstyle")
script("wrong-option-magic", "broken", "an option reply with another magic",
       any_option=pieces.patched(0, ">Q", 0xDEADBEEFCAFEF00D))
script("wrong-option-echo", "broken", "an option reply to an option that was not sent",
       any_option=pieces.patched(8, ">I", 77))
script("huge-option-length", "broken", "an option reply that claims 4 GiB",
       any_option=pieces.option_says(Rep.ACK, length=HUGE))
script("huge-error-length", "broken", "an option error whose text claims 4 GiB",
       any_option=pieces.option_error(Rep.ERR_POLICY, length=HUGE))
script("ack-with-data", "broken", "ACK that carries data",
       option=go(pieces.option_says(Rep.ACK, b"data")))
script("ack-without-info", "broken", "GO accepted without INFO_EXPORT",
       option=go(pieces.option_says(Rep.ACK)))
script("wrong-reply-type", "broken", "REP_SERVER in answer to GO",
       option=go(pieces.option_says(Rep.SERVER, bytes(4))))
script("unknown-reply-type", "broken", "a reply type that no document knows",
       option=go(pieces.option_says(0x1234)))
script("short-info-export", "broken", "INFO_EXPORT of 4 bytes",
       option=go(pieces.option_says(Rep.INFO, bytes(4))))
script("empty-info", "broken", "INFO without even a type",
       option=go(pieces.option_says(Rep.INFO)))
script("long-info-export", "broken", "INFO_EXPORT with 2 bytes too many",
       option=go(pieces.option_says(Rep.INFO, bytes(14))))
script("negative-size", "broken", "an export of 2^63 bytes", export={"size": 1 << 63})
script("short-block-size", "broken", "INFO_BLOCK_SIZE of 6 bytes",
       option=go(lambda s, o: p.option_reply(o.number, Rep.INFO, b"\0\3" + bytes(4))
                 + s.usual(o)))
script("endless-info", "broken", "endless INFO of a kind not known",
       option=go(pieces.endless(
           lambda s, o: p.option_reply(o.number, Rep.INFO, b"\x99\x99" + b"x" * 1000))))
script("endless-info-export", "broken", "endless INFO_EXPORT",
       option=go(pieces.endless(lambda s, o: p.info_export(o.number, 1 << 20, 1))))
script("endless-list", "ok", "an endless list of exports (broken for LIST)",
       option={Opt.LIST: pieces.endless(lambda s, o: p.rep_server(b"x" * 100, b"y" * 100))})
script("long-name-list", "ok", "LIST with a name of 64 KiB (broken for LIST)",
       option={Opt.LIST: lambda s, o: p.rep_server(LONG_NAME) + s.usual(o)})
script("name-beyond-list", "ok", "LIST with a name longer than its reply (broken for LIST)",
       option={Opt.LIST: pieces.option_says(Rep.SERVER, b"\xff\xff\xff\xf0name")})
script("control-name-list", "ok", "LIST with control bytes in a name",
       option={Opt.LIST: lambda s, o: p.rep_server(CONTROL_NAME, CONTROL_NAME)
               + s.usual(o)})
script("endless-meta", "broken", "endless meta contexts", option={
    Opt.SET_META_CONTEXT: pieces.endless(
        lambda s, o: p.rep_meta(o.number, 1, b"base:allocation"))})
script("long-meta-name", "broken", "a meta context of 64 KiB", option={
    Opt.SET_META_CONTEXT: lambda s, o: p.rep_meta(o.number, 1, LONG_NAME) + s.usual(o)})
script("short-meta", "broken", "META_CONTEXT of 2 bytes", option={
    Opt.SET_META_CONTEXT: pieces.option_says(Rep.META_CONTEXT, b"ab")})
script("long-description", "broken", "an export description of 64 KiB",
       option=go(lambda s, o: p.info_text(o.number, Info.DESCRIPTION, LONG_NAME)
                 + s.usual(o)))

# Replies, broken.
script("wrong-reply-magic", "broken", "a reply with another magic",
       command={Cmd.READ: pieces.patched(0, ">I", 0xDEADBEEF)})
script("unknown-cookie", "broken", "a reply for a cookie never sent",
       command={Cmd.READ: pieces.patched(8, ">Q", 0x1234567812345678)})
script("doubled-reply", "broken", "each reply twice",
       command={Cmd.READ: pieces.doubled})
script("huge-chunk", "broken", "a chunk that claims 4 GiB",
       command={Cmd.READ: pieces.patched(16, ">I", HUGE)})
script("endless-chunks", "broken", "endless chunks for one read", command={
    Cmd.READ: pieces.endless(lambda s, r: p.chunk(
        r.cookie, Chunk.OFFSET_DATA, p.offset_data(r.offset, bytes(512)), flags=0))})
script("data-beyond", "broken", "data that lies outside the request", command={
    Cmd.READ: pieces.chunks((Chunk.OFFSET_DATA,
                             lambda r: p.offset_data(r.offset + r.length, b"x" * 512)))})
script("huge-status", "ok", "a block status chunk that claims 4 GiB (broken for it)",
       command={Cmd.BLOCK_STATUS: pieces.patched(16, ">I", HUGE)})
script("endless-status", "ok", "endless block status chunks for one request", command={
    Cmd.BLOCK_STATUS: pieces.endless(lambda s, r: p.chunk(
        r.cookie, Chunk.BLOCK_STATUS, p.status_payload(1, [(512, 0)] * 64), flags=0))})
script("too-many-extents", "ok", "4 Mi extents in one chunk", command={
    Cmd.BLOCK_STATUS: lambda s, r: p.chunk(r.cookie, Chunk.BLOCK_STATUS,
                                           bytes(4) + bytes(8) * (4 << 20))})
script("huge-error-chunk", "broken", "an error chunk that claims 4 GiB",
       command={Cmd.READ: lambda s, r: p.chunk(r.cookie, Chunk.ERROR,
                                               p.error_payload(5), length=HUGE)})
script("endless-list-error", "ok", "LIST refused with a text of 4 GiB (broken for LIST)",
       option={Opt.LIST: lambda s, o: pieces.said_then(
           p.option_reply(o.number, Rep.ERR_POLICY, length=HUGE),
           pieces.endless(lambda s, o: b"text"))(s, o)})
script("endless-context-list", "ok", "an endless list of meta contexts (broken for it)",
       option={Opt.LIST_META_CONTEXT: pieces.endless(
           lambda s, o: p.rep_meta(o.number, 0, b"x:" + b"y" * 100))})
script("simple-for-structured", "broken", "a simple reply to READ after structured replies",
       command={Cmd.READ: lambda s, r: p.simple_reply(r.cookie, 0, bytes(r.length))})
script("structured-unasked", "broken", "a structured reply without negotiation",
       structured=False, command={Cmd.READ: lambda s, r: p.chunk(
           r.cookie, Chunk.OFFSET_DATA, p.offset_data(r.offset, bytes(r.length)))})
script("unknown-chunk", "broken", "a chunk type that no document knows",
       command={Cmd.READ: pieces.chunks((99, b""))})
for name, error in (("EPERM", Err.EPERM), ("EIO", Err.EIO), ("ENOMEM", Err.ENOMEM),
                    ("EINVAL", Err.EINVAL), ("ENOSPC", Err.ENOSPC),
                    ("EOVERFLOW", Err.EOVERFLOW), ("ENOTSUP", Err.ENOTSUP),
                    ("ESHUTDOWN", Err.ESHUTDOWN)):
    script("error-" + name.lower(), "failed", f"every command fails with {name}",
           any_command=pieces.command_error(error, b"said the server"))
    script("simple-error-" + name.lower(), "failed", f"a simple reply with {name}",
           structured=False, any_command=pieces.command_error(error))
