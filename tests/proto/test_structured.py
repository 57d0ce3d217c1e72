"""Structured replies: every chunk type and rule of the protocol document's "Structured
reply types", and what happens when a server does not keep them."""
import ctypes
import errno
import struct

import pytest

from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_ctypes import CHUNK, Callback, NbdError, buffer, completion
from tests.harness.nbd_proto import Chunk, Cmd
from tests.proto.marks import better


def data(at, payload):
    """A data chunk AT bytes into the request."""
    return Chunk.OFFSET_DATA, lambda r: p.offset_data(r.offset + at, payload)


def hole(at, length):
    return Chunk.OFFSET_HOLE, lambda r: p.offset_hole(r.offset + at, length)


def error(number, text=b""):
    return Chunk.ERROR, p.error_payload(number, text)


def error_at(number, at, text=b""):
    return Chunk.ERROR_OFFSET, lambda r: p.error_payload(number, text, r.offset + at)


NONE = (Chunk.NONE, b"")


def answered(connected, *described, **fields):
    return connected(command={Cmd.READ: pieces.chunks(*described)}, **fields)


@pytest.mark.parametrize("name, described", {
    "one chunk": [data(0, b"a" * 1024 + bytes(512) + b"b" * 512)],
    "in order": [data(0, b"a" * 1024), hole(1024, 512), data(1536, b"b" * 512)],
    "backwards": [data(1536, b"b" * 512), hole(1024, 512), data(0, b"a" * 1024)],
    "closed by an empty chunk": [data(0, b"a" * 1024), hole(1024, 512),
                                 data(1536, b"b" * 512), NONE],
    "odd parts": [data(0, b"a"), data(1, b"a" * 1023), hole(1024, 1), hole(1025, 511),
                  data(1536, b"b" * 511), data(2047, b"b")],
}.items())
@pytest.mark.parametrize("segment", [None, 1, 13])
def test_read_is_put_together_from_chunks(connected, name, described, segment):
    _, h = answered(connected, *described, segment=segment)
    block = buffer(b"\xff" * 2048)
    h.pread(block, 2048, 4096, 0)
    assert block.raw == b"a" * 1024 + bytes(512) + b"b" * 512
    assert h.aio_is_ready()


def test_hole_of_the_whole_request(connected):
    _, h = answered(connected, hole(0, 2048))
    block = buffer(b"\xff" * 2048)
    h.set_pread_initialize(False)
    h.pread(block, 2048, 0, 0)
    assert block.raw == bytes(2048)


@pytest.mark.parametrize("segment", [None, 1])
def test_chunks_of_several_reads_may_interleave(connected, segment):
    state = []

    def interleaved(session, request):
        state.append(request)
        if len(state) < 2:
            return b""
        first, second = state
        part = [(r, at) for at in (0, 512) for r in (second, first)]
        return b"".join(
            p.chunk(r.cookie, Chunk.OFFSET_DATA,
                    p.offset_data(r.offset + at, bytes([r.offset // 1024 + 1]) * 512),
                    flags=at == 512) for r, at in part)
    _, h = connected(command={Cmd.READ: interleaved}, segment=segment)
    blocks = [buffer(1024), buffer(1024)]
    for i, block in enumerate(blocks):
        h.aio_pread(block, 1024, i * 1024, completion(lambda e: 1), 0)
    h.poll_until(lambda: h.aio_in_flight() == 0)
    assert blocks[0].raw == b"\1" * 1024 and blocks[1].raw == b"\2" * 1024


def test_empty_chunk_answers_a_write(connected):
    _, h = connected(command={Cmd.WRITE: pieces.chunks(NONE)})
    h.write(0, b"x")
    assert h.aio_is_ready()


def test_simple_replies_go_on_for_commands_without_data(connected):
    _, h = connected()
    h.write(0, b"x")
    h.flush(0)
    h.trim(512, 0, 0)


@pytest.mark.parametrize("described, number", [
    ([error(5)], errno.EIO),
    ([error(28, b"t" * 4096)], errno.ENOSPC),
    ([error(12), NONE], errno.ENOMEM),
    ([data(0, b"a" * 512), error(1)], errno.EPERM),
    ([error_at(5, 512), data(0, b"a" * 512), NONE], errno.EIO),
    ([error_at(95, 0), error_at(5, 512), NONE], errno.ENOTSUP),
    ([data(0, b"a" * 2048), error(108)], errno.ESHUTDOWN),
])
@pytest.mark.parametrize("segment", [None, 1])
def test_error_chunk_fails_the_command_alone(connected, described, number, segment):
    _, h = answered(connected, *described, segment=segment)
    with pytest.raises(NbdError) as e:
        h.read(0, 2048)
    assert e.value.errno == number
    assert h.aio_is_ready()
    h.flush(0)


@pytest.mark.parametrize("command, name", [
    (Cmd.WRITE, "pwrite"), (Cmd.FLUSH, "flush"), (Cmd.TRIM, "trim"),
    (Cmd.WRITE_ZEROES, "zero"), (Cmd.CACHE, "cache")])
def test_error_chunk_answers_any_command(connected, command, name):
    _, h = connected(command={command: pieces.chunks(error(28, b"full"))})
    values = {"pwrite": (buffer(512), 512, 0), "flush": ()}.get(name, (512, 0))
    with pytest.raises(NbdError) as e:
        h.call(name, *values, 0)
    assert e.value.errno == errno.ENOSPC
    assert h.aio_is_ready()


def test_unknown_error_chunk_fails_the_command_alone(connected):
    """Types with bit 15 set are errors, also those that no document knows yet."""
    _, h = answered(connected, (32768 + 999, p.error_payload(5, b"new") + b"more"))
    with pytest.raises(NbdError):
        h.read(0, 512)
    assert h.aio_is_ready()


def test_server_s_text_of_an_error_is_escaped_in_debug_and_errors(connected):
    _, h = answered(connected, error(5, b"\x1b[31mred\n"))
    with pytest.raises(NbdError) as e:
        h.read(0, 512)
    assert "\x1b" not in e.value.text and "\n" not in e.value.text


# Breaches: the connection cannot be trusted any more --------------------------------------

BREACHES = {
    "data before the request": [data(-512, b"x" * 512)],
    "data after the request": [data(2048, b"x")],
    "data across the end": [data(1536, b"x" * 513)],
    "data that wraps around": [(Chunk.OFFSET_DATA, p.offset_data(2 ** 64 - 8, b"x" * 16))],
    "data without an offset": [(Chunk.OFFSET_DATA, bytes(7))],
    "hole before the request": [hole(-1, 16)],
    "hole across the end": [hole(2047, 2)],
    "hole of 4 GiB": [hole(0, 0xFFFFFFFF)],
    "hole of another length": [(Chunk.OFFSET_HOLE, bytes(13))],
    "hole cut short": [(Chunk.OFFSET_HOLE, bytes(8))],
    "status in reply to a read": [(Chunk.BLOCK_STATUS, bytes(12))],
    "error cut short": [(Chunk.ERROR, bytes(5))],
    "error text beyond its chunk": [(Chunk.ERROR, struct.pack(">IH", 5, 100))],
    "error offset cut short": [(Chunk.ERROR_OFFSET, struct.pack(">IH", 5, 0) + bytes(7))],
    "empty chunk with a payload": [(Chunk.NONE, b"x")],
    "unknown type": [(1234, b"")],
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_ends_the_connection_with_one_clear_error(connected, name):
    _, h = answered(connected, *BREACHES[name])
    with pytest.raises(NbdError) as e:
        h.read(4096, 2048)
    assert e.value.text.startswith("nbd_pread: ")
    assert h.state() == "DEAD"


@pytest.mark.parametrize("name", [
    "data before the request", "data after the request", "data across the end",
    "data that wraps around", "hole across the end", "hole of 4 GiB"])
def test_breach_writes_nothing_outside_the_buffer(connected, name):
    _, h = answered(connected, *BREACHES[name])
    block = buffer(b"\xee" * 8192)
    middle = ctypes.c_void_p(ctypes.addressof(block) + 4096)
    with pytest.raises(NbdError):
        h.call("pread", middle, 2048, 4096, 0)
    assert block.raw[:4096] == b"\xee" * 4096
    assert block.raw[6144:] == b"\xee" * 2048


@pytest.mark.parametrize("length", [4, 0xFFFFFFFF, 0x80000000, (64 << 20) + 9])
def test_absurd_chunk_length_is_an_error_at_once(connected, length):
    _, h = connected(command={Cmd.READ: lambda s, r: p.chunk(
        r.cookie, Chunk.OFFSET_DATA, p.offset_data(r.offset, b"")[:4], length=length)
        + bytes(4)}, limit_seconds=5)
    with pytest.raises(NbdError):
        h.read(0, 512)
    assert h.state() == "DEAD"


@better("the other takes the rest of the buffer for read")
@pytest.mark.parametrize("described", [
    [data(0, b"x" * 512)], [NONE], [data(512, b"x" * 1536)], [hole(0, 2047)],
    [data(0, b"")]])
def test_read_that_is_not_complete_is_an_error(connected, described):
    _, h = answered(connected, *described)
    with pytest.raises(NbdError) as e:
        h.read(0, 2048)
    assert e.value.errno in (errno.EPROTO, errno.EIO)


@better("the other does not look")
@pytest.mark.parametrize("described", [
    [data(0, b"x" * 1024), data(512, b"y" * 1536)], [data(0, b"x" * 2048), hole(0, 1)]])
def test_overlapping_data_is_never_more_than_was_asked_for(connected, described):
    _, h = answered(connected, *described)
    with pytest.raises(NbdError) as e:
        h.read(0, 2048)
    assert e.value.errno == errno.EPROTO


def test_simple_reply_to_a_structured_read_is_a_breach(connected):
    _, h = connected(command={Cmd.READ: lambda s, r: p.simple_reply(r.cookie, 0,
                                                                    bytes(r.length))})
    with pytest.raises(NbdError):
        h.read(0, 512)
    assert h.state() == "DEAD"


@pytest.mark.parametrize("structured", [False, True])
def test_reply_to_a_retired_cookie_is_a_breach(connected, structured):
    _, h = connected(structured=structured, command={Cmd.READ: pieces.doubled})
    with pytest.raises(NbdError):
        for _ in range(3):
            h.read(0, 512)
    assert h.state() == "DEAD"


def test_chunk_callback_sees_parts_that_arrive_late(connected):
    _, h = answered(connected, data(0, b"a" * 1024), data(1024, b"b" * 1024), segment=100)
    seen = Callback(CHUNK)
    h.pread_structured(buffer(2048), 2048, 0, seen, 0)
    assert [(c[0], c[1]) for c in seen.calls] == [(b"a" * 1024, 0), (b"b" * 1024, 1024)]
