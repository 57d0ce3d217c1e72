"""Numbers and messages of the NBD protocol, for the test's own servers and checks.

Names are those of the protocol document with the NBD_ prefix taken off.
"""
import struct

HELLO_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OLDSTYLE_MAGIC = 0x00420281861253
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
EXTENDED_REQUEST_MAGIC = 0x21E41C71
EXTENDED_REPLY_MAGIC = 0x6E8A278C

FLAG_FIXED_NEWSTYLE = 1
FLAG_NO_ZEROES = 2
REPLY_FLAG_DONE = 1
RESERVED_ZEROES = bytes(124)


class Opt:
    EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO = range(1, 8)
    STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = range(8, 12)


class Rep:
    ACK, SERVER, INFO, META_CONTEXT = range(1, 5)
    (ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN,
     ERR_SHUTDOWN, ERR_BLOCK_SIZE_REQD, ERR_TOO_BIG, ERR_EXT_HEADER_REQD) = (
        (1 << 31) + n for n in range(1, 11))


class Info:
    EXPORT, NAME, DESCRIPTION, BLOCK_SIZE = range(4)


class Flag:
    """Transmission flags."""
    (HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM,
     SEND_WRITE_ZEROES, SEND_DF, CAN_MULTI_CONN, SEND_RESIZE, SEND_CACHE,
     SEND_FAST_ZERO, BLOCK_STATUS_PAYLOAD) = (1 << n for n in range(13))
    ALL_COMMANDS = (HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES
                    | SEND_DF | CAN_MULTI_CONN | SEND_CACHE | SEND_FAST_ZERO)


class Cmd:
    READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE = range(9)


class CmdFlag:
    FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << n for n in range(6))


class Chunk:
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    BLOCK_STATUS_EXT = 6
    ERROR = 32769
    ERROR_OFFSET = 32770


class Err:
    """Error numbers of replies; those that both Linux and the protocol name."""
    EPERM, EIO, ENOMEM, EINVAL, ENOSPC = 1, 5, 12, 22, 28
    EOVERFLOW, ENOTSUP, ESHUTDOWN = 75, 95, 108


def names_of(space):
    """{number: name} of one of the classes above."""
    return {v: k for k, v in vars(space).items() if k.isupper() and isinstance(v, int)}


# Handshake --------------------------------------------------------------------------

def oldstyle_hello(size, flags):
    return HELLO_MAGIC + struct.pack(">QQI", OLDSTYLE_MAGIC, size, flags) + RESERVED_ZEROES


def newstyle_hello(handshake_flags):
    return HELLO_MAGIC + OPTION_MAGIC + struct.pack(">H", handshake_flags)


def option_request(option, data=b""):
    return OPTION_MAGIC + struct.pack(">II", option, len(data)) + data


def option_reply(option, reply, data=b"", length=None):
    """One reply message; LENGTH claims another length than that of DATA."""
    return struct.pack(">QIII", OPTION_REPLY_MAGIC, option, reply,
                       len(data) if length is None else length) + data


def go_data(name, infos=()):
    name = name.encode()
    return struct.pack(f">I{len(name)}sH{len(infos)}H", len(name), name, len(infos), *infos)


def parse_go(data):
    """Payload of INFO or GO: (export name as bytes, list of information requests)."""
    (n,) = struct.unpack_from(">I", data)
    (count,) = struct.unpack_from(">H", data, 4 + n)
    return data[4:4 + n], list(struct.unpack_from(f">{count}H", data, 6 + n))


def parse_meta(data):
    """Payload of LIST or SET_META_CONTEXT: (export name as bytes, queries as bytes)."""
    (n,) = struct.unpack_from(">I", data)
    name, at = data[4:4 + n], 8 + n
    (count,) = struct.unpack_from(">I", data, 4 + n)
    queries = []
    for _ in range(count):
        (n,) = struct.unpack_from(">I", data, at)
        queries.append(data[at + 4:at + 4 + n])
        at += 4 + n
    return name, queries


def info_export(option, size, flags):
    return option_reply(option, Rep.INFO, struct.pack(">HQH", Info.EXPORT, size, flags))


def info_block_size(option, minimum, preferred, maximum):
    return option_reply(option, Rep.INFO, struct.pack(">HIII", Info.BLOCK_SIZE, minimum,
                                                      preferred, maximum))


def info_text(option, kind, text):
    return option_reply(option, Rep.INFO, struct.pack(">H", kind) + text)


def rep_server(name, description=b""):
    return option_reply(Opt.LIST, Rep.SERVER,
                        struct.pack(">I", len(name)) + name + description)


def rep_meta(option, context_id, name):
    return option_reply(option, Rep.META_CONTEXT, struct.pack(">I", context_id) + name)


# Transmission -----------------------------------------------------------------------

def request(type_, cookie=1, offset=0, length=0, flags=0):
    return struct.pack(">IHHQQI", REQUEST_MAGIC, flags, type_, cookie, offset, length)


def simple_reply(cookie, error=0, data=b""):
    return struct.pack(">IIQ", SIMPLE_REPLY_MAGIC, error, cookie) + data


def chunk(cookie, type_, payload=b"", flags=REPLY_FLAG_DONE, length=None):
    """A structured reply chunk; LENGTH claims another length than that of PAYLOAD."""
    return struct.pack(">IHHQI", STRUCTURED_REPLY_MAGIC, flags, type_, cookie,
                       len(payload) if length is None else length) + payload


def extended_chunk(cookie, offset, type_, payload=b"", flags=REPLY_FLAG_DONE, length=None):
    return struct.pack(">IHHQQQ", EXTENDED_REPLY_MAGIC, flags, type_, cookie, offset,
                       len(payload) if length is None else length) + payload


def offset_data(offset, data):
    return struct.pack(">Q", offset) + data


def offset_hole(offset, length):
    return struct.pack(">QI", offset, length)


def error_payload(error, text=b"", offset=None):
    tail = b"" if offset is None else struct.pack(">Q", offset)
    return struct.pack(">IH", error, len(text)) + text + tail


def status_payload(context_id, extents):
    """BLOCK_STATUS: extents of 32-bit lengths and flags."""
    return struct.pack(">I", context_id) + b"".join(struct.pack(">II", *e) for e in extents)


def status_ext_payload(context_id, extents):
    """BLOCK_STATUS_EXT: extents of 64-bit lengths and flags."""
    return struct.pack(">II", context_id, len(extents)) + b"".join(
        struct.pack(">QQ", *e) for e in extents)
