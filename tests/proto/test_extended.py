"""Extended headers: 64-bit lengths, payloads, block status in all its forms."""
import errno
import struct

import pytest

from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_ctypes import (EXTENT, EXTENT64, Callback, NbdError, buffer)
from tests.harness.nbd_proto import Chunk, Cmd, CmdFlag, Flag, Opt, Rep
from tests.harness.script_server import Export
from tests.harness.wait import Stopwatch
from tests.proto.marks import needs

pytestmark = needs("get_extended_headers_negotiated", "block_status_64")
META = {"meta": ["base:allocation"]}
LARGE = 1 << 40


@pytest.fixture
def extended(connected):
    """extended(settings, script fields...): connected with extended headers."""
    def connect(settings=None, **fields):
        return connected(settings, extended=True, **fields)
    return connect


def test_extended_headers_come_first_and_imply_structured_replies(extended):
    server, h = extended()
    assert [o.number for o in server.options()] == [Opt.EXTENDED_HEADERS, Opt.GO]
    assert h.get_extended_headers_negotiated() == 1
    assert h.get_structured_replies_negotiated() == 1


def test_without_them_structured_replies_are_asked_for(ready):
    server, h = ready
    assert [o.number for o in server.options()] == [
        Opt.EXTENDED_HEADERS, Opt.STRUCTURED_REPLY, Opt.GO]
    assert h.get_extended_headers_negotiated() == 0


@pytest.mark.parametrize("settings", [{"request_extended_headers": False},
                                      {"request_structured_replies": False}])
def test_they_are_not_asked_for_when_unwanted(extended, settings):
    server, h = extended(settings)
    assert Opt.EXTENDED_HEADERS not in [o.number for o in server.options()]
    assert h.get_extended_headers_negotiated() == 0
    assert h.read(0, 8) == bytes(8)


def test_they_can_be_asked_for_by_hand(serve, handle):
    server = serve(extended=True)
    h = handle(opt_mode=True, request_extended_headers=False)
    h.connect_uri(server.uri())
    assert h.get_extended_headers_negotiated() == 0
    assert h.opt_extended_headers() == 1
    assert h.get_extended_headers_negotiated() == 1
    h.opt_go()
    assert h.read(0, 8) == bytes(8)


def test_refusal_by_hand_is_no_error(serve, handle):
    server, h = serve(), handle(opt_mode=True, request_extended_headers=False)
    h.connect_uri(server.uri())
    assert h.opt_extended_headers() == 0
    h.opt_go()
    assert h.read(0, 8) == bytes(8)


@pytest.mark.parametrize("segment", [None, 1, 17])
def test_data_is_written_and_read_back(extended, segment):
    server, h = extended(segment=segment)
    data = bytes(range(256)) * 16
    h.write(512, data)
    assert h.read(512, len(data)) == data
    assert h.read(0, 512) == bytes(512)
    write, *reads = server.requests()
    assert write.flags == CmdFlag.PAYLOAD_LEN and write.length == len(data)
    assert all(r.flags == 0 for r in reads)


def test_payload_flag_is_for_writes_alone(extended):
    server, h = extended(META)
    h.flush(0)
    h.trim(512, 0, 0)
    h.zero(512, 0, 0)
    h.cache(512, 0, 0)
    h.block_status(512, 0, Callback(EXTENT), 0)
    assert all(r.flags == 0 for r in server.requests())


def test_payload_flag_is_never_sent_without_extended_headers(ready):
    server, h = ready
    h.write(0, b"x")
    assert server.requests()[0].flags == 0


@pytest.mark.parametrize("name", ["trim", "zero", "cache"])
@pytest.mark.parametrize("length", [(1 << 32) - 1, 1 << 32, LARGE])
def test_lengths_of_64_bits(extended, name, length):
    server, h = extended(exports=Export(LARGE))
    h.call(name, length, 0, 0)
    assert server.requests()[0].length == length


@pytest.mark.parametrize("name, values", [
    ("pread", (buffer(512), 512, 0)), ("pwrite", (buffer(512), 512, 0)), ("flush", ()),
    ("trim", (512, 0))])
def test_error_fails_the_command_alone(extended, name, values):
    _, h = extended(any_command=pieces.command_error(28, b"text"))
    with pytest.raises(NbdError) as e:
        h.call(name, *values, 0)
    assert e.value.errno == errno.ENOSPC
    assert h.aio_is_ready()


def test_replies_in_any_order(extended):
    _, h = extended(command={Cmd.READ: pieces.gathered(5)})
    blocks = [buffer(b"\xff" * 100) for _ in range(5)]
    for block in blocks:
        h.aio_pread(block, 100, 0, None, 0)
    h.poll_until(lambda: h.aio_in_flight() == 0)
    assert all(b.raw == bytes(100) for b in blocks)


def raw_chunk(type_, payload=b"", offset=None, length=None):
    return lambda s, r: p.extended_chunk(r.cookie, r.offset if offset is None else offset,
                                         type_, payload, length=length)


@pytest.mark.parametrize("piece", [
    raw_chunk(Chunk.OFFSET_DATA, p.offset_data(0, bytes(512)), offset=4096),
    raw_chunk(Chunk.OFFSET_DATA, p.offset_data(512, bytes(512))),
    raw_chunk(Chunk.OFFSET_DATA, length=1 << 63), raw_chunk(Chunk.OFFSET_DATA, length=1 << 32),
    raw_chunk(Chunk.NONE, b"x"), raw_chunk(77),
    lambda s, r: p.chunk(r.cookie, Chunk.OFFSET_DATA, p.offset_data(0, bytes(512))),
    lambda s, r: p.simple_reply(r.cookie, 0, bytes(512)) + bytes(32),
], ids=["other offset", "other data", "2^63 bytes", "2^32 bytes", "empty with payload",
        "unknown type", "structured header", "simple header"])
def test_breach_ends_the_connection(extended, piece):
    _, h = extended(command={Cmd.READ: piece})
    watch = Stopwatch()
    with pytest.raises(NbdError):
        h.read(0, 512)
    assert h.state() == "DEAD"
    assert watch.quiet() < 5                # not only when the server has given up


# Block status -----------------------------------------------------------------------------

def large(offset, length):
    return [(length // 2, 1), (length - length // 2, 2)]


def status_64(h, count, offset=0, flags=0):
    seen = Callback(EXTENT64)
    h.block_status_64(count, offset, seen, flags)
    assert seen.sound
    return seen.calls


def test_64_bit_status(extended):
    server, h = extended(META, exports=Export(LARGE, contexts={"base:allocation": large}))
    assert status_64(h, LARGE) == [
        (b"base:allocation", 0, [(LARGE // 2, 1), (LARGE // 2, 2)], 0)]
    assert server.requests()[0].length == LARGE


def test_64_bit_status_of_a_32_bit_server(connected):
    _, h = connected(META, exports=Export(contexts={"base:allocation": large}))
    assert status_64(h, 8192, 4096) == [
        (b"base:allocation", 4096, [(4096, 1), (4096, 2)], 0)]


def status_32(h, count, offset=0):
    seen = Callback(EXTENT)
    h.block_status(count, offset, seen, 0)
    assert seen.sound
    return seen.calls


def test_32_bit_status_of_a_64_bit_server(extended):
    _, h = extended(META, exports=Export(contexts={"base:allocation": large}))
    assert status_32(h, 8192) == [(b"base:allocation", 0, [(4096, 1), (4096, 2)], 0)]


def test_32_bit_status_cuts_extents_that_do_not_fit(extended):
    _, h = extended(META, exports=Export(LARGE, contexts={"base:allocation": large}))
    ((name, offset, extents, error),) = status_32(h, LARGE)
    assert 0 < extents[0][0] < 1 << 32 and extents[0][1] == 1
    covered = 0
    for length, flags in extents:           # what is told must be true
        assert flags == (1 if covered < LARGE // 2 else 2)
        covered += length


def test_32_bit_status_refuses_flags_that_do_not_fit(extended):
    export = Export(contexts={"base:allocation": lambda o, n: [(n, 1 << 32)]})
    _, h = extended(META, exports=export)
    with pytest.raises(NbdError) as e:
        status_32(h, 512)
    assert e.value.errno == errno.EOVERFLOW
    assert status_64(h, 512)[0][2] == [(512, 1 << 32)]


@pytest.mark.parametrize("payload", [
    b"", struct.pack(">I", 1), struct.pack(">II", 1, 0), struct.pack(">IIQ", 1, 1, 512),
    struct.pack(">IIQQ", 1, 2, 512, 0), struct.pack(">IIQQ", 1, 0xFFFFFFFF, 512, 0),
    struct.pack(">IIQQ", 1, 1, 0, 0), struct.pack(">IIQQQ", 1, 1, 512, 0, 0)])
def test_malformed_status_is_an_error(extended, payload):
    _, h = extended(META, command={Cmd.BLOCK_STATUS: raw_chunk(Chunk.BLOCK_STATUS_EXT,
                                                               payload)})
    with pytest.raises(NbdError):
        status_64(h, 512)


def test_old_status_chunk_is_a_breach_with_extended_headers(extended):
    _, h = extended(META, command={Cmd.BLOCK_STATUS: raw_chunk(
        Chunk.BLOCK_STATUS, p.status_payload(1, [(512, 0)]))})
    with pytest.raises(NbdError):
        status_64(h, 512)


def test_new_status_chunk_is_a_breach_without_extended_headers(connected):
    _, h = connected(META, command={Cmd.BLOCK_STATUS: pieces.chunks(
        (Chunk.BLOCK_STATUS_EXT, p.status_ext_payload(1, [(512, 0)])))})
    with pytest.raises(NbdError):
        status_64(h, 512)


# Filter -----------------------------------------------------------------------------------

CONTEXTS = {"base:allocation": large, "x:a": large, "x:b": large}
FILTER = {"exports": Export(flags=Flag.ALL_COMMANDS | Flag.BLOCK_STATUS_PAYLOAD,
                            contexts=CONTEXTS)}
ALL = {"meta": list(CONTEXTS)}


def filtered(h, contexts, count=8192, offset=4096):
    seen = Callback(EXTENT64)
    h.block_status_filter(count, offset, contexts, seen, 0)
    assert seen.sound
    return sorted(call[0].decode() for call in seen.calls)


def test_filter_asks_for_the_named_contexts(extended):
    server, h = extended(ALL, **FILTER)
    assert h.can_block_status_payload() == 1
    assert filtered(h, ["x:b"]) == ["x:b"]
    assert filtered(h, ["x:a", "base:allocation"]) == ["base:allocation", "x:a"]
    request = server.requests()[0]
    assert request.flags == CmdFlag.PAYLOAD_LEN
    assert request.payload == struct.pack(">QI", 8192, 3) and request.offset == 4096


def test_filter_needs_the_server(extended):
    server, h = extended(ALL, exports=Export(contexts=CONTEXTS))
    assert h.can_block_status_payload() == 0
    with pytest.raises(NbdError) as e:
        filtered(h, ["x:b"])
    assert e.value.errno == errno.EINVAL
    assert server.requests() == []


def test_filter_by_a_context_that_was_not_negotiated_is_einval(extended):
    server, h = extended(ALL, **FILTER)
    with pytest.raises(NbdError) as e:
        filtered(h, ["never:was"])
    assert e.value.errno == errno.EINVAL
    assert server.requests() == []


def test_refusals_of_extended_headers_are_all_taken(connected):
    for code in (Rep.ERR_UNSUP, Rep.ERR_POLICY, Rep.ERR_INVALID, Rep.ERR_PLATFORM):
        _, h = connected(option={Opt.EXTENDED_HEADERS: pieces.option_error(code)})
        assert h.get_extended_headers_negotiated() == 0
        assert h.get_structured_replies_negotiated() == 1
        assert h.read(0, 8) == bytes(8)
