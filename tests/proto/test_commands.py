"""Commands: what goes over the wire, and what strict mode refuses before it does."""
import errno

import pytest

from tests.harness import pieces
from tests.harness.nbd_ctypes import (CHUNK, EXTENT, Callback, NbdError, buffer, completion)
from tests.harness.nbd_proto import Chunk, Cmd, CmdFlag, Flag, error_payload
from tests.harness.script_server import Export
from tests.proto.marks import better, needs

SIZE = 1 << 20
META = {"meta": ["base:allocation"]}
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = (
    CmdFlag.FUA, CmdFlag.NO_HOLE, CmdFlag.DF, CmdFlag.REQ_ONE, CmdFlag.FAST_ZERO)
STRICT_COMMANDS, STRICT_FLAGS, STRICT_BOUNDS, STRICT_ZERO_SIZE, STRICT_ALIGN = (
    1, 2, 4, 8, 16)

# name: (command, flags it may carry, transmission flag that the server must show)
COMMANDS = {
    "pread": (Cmd.READ, 0, 0),
    "pread_structured": (Cmd.READ, DF, 0),
    "pwrite": (Cmd.WRITE, FUA, 0),
    "flush": (Cmd.FLUSH, 0, Flag.SEND_FLUSH),
    "trim": (Cmd.TRIM, FUA, Flag.SEND_TRIM),
    "cache": (Cmd.CACHE, 0, Flag.SEND_CACHE),
    "zero": (Cmd.WRITE_ZEROES, FUA | NO_HOLE | FAST_ZERO, Flag.SEND_WRITE_ZEROES),
    "block_status": (Cmd.BLOCK_STATUS, REQ_ONE, 0),
}
RANGED = [n for n in COMMANDS if n != "flush"]


def issue(h, name, count=512, offset=0, flags=0, asynchronous=False):
    """Make the call; a kept object may be what it leaves its result in."""
    data = buffer(max(count, 1) if count <= 65 << 20 else 1)
    if name in ("pread", "pwrite"):
        values = (data, count, offset)
    elif name == "pread_structured":
        values = (data, count, offset, Callback(CHUNK))
    elif name == "flush":
        values = ()
    elif name == "block_status":
        values = (count, offset, Callback(EXTENT))
    else:
        values = (count, offset)
    if asynchronous:
        return h.call("aio_" + name, *values, completion(lambda error: 1), flags)
    return h.call(name, *values, flags)


def refused(server, h, name, code, **how):
    """The call fails with CODE, alike in both forms, and sends nothing."""
    before = len(server.requests())
    for asynchronous in (False, True):
        with pytest.raises(NbdError) as e:
            issue(h, name, asynchronous=asynchronous, **how)
        prefix = "nbd_aio_" if asynchronous else "nbd_"
        assert e.value.text.startswith(f"{prefix}{name}: ")
        assert e.value.errno == code, e.value.text
    issue(h, "pread")
    assert [r.type for r in server.requests()[before:]] == [Cmd.READ]
    return e.value.text


# The wire ---------------------------------------------------------------------------------

@pytest.mark.parametrize("name", COMMANDS)
def test_request_carries_type_offset_and_length(connected, name):
    server, h = connected(META)
    issue(h, name, 1024, 4096)
    request = server.requests()[-1]
    assert request.type == COMMANDS[name][0]
    assert (request.offset, request.length) == ((0, 0) if name == "flush" else (4096, 1024))
    assert request.flags == 0
    assert request.payload == (bytes(1024) if name == "pwrite" else b"")


@pytest.mark.parametrize("name, flag", [
    (name, flag) for name, row in COMMANDS.items()
    for flag in (FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO) if flag & row[1]])
def test_permitted_flag_is_sent(connected, name, flag):
    server, h = connected(META)
    issue(h, name, flags=flag)
    assert server.requests()[-1].flags == flag


def test_cookies_are_distinct_and_positive(ready):
    server, h = ready
    cookies = [issue(h, "pread", asynchronous=True) for _ in range(50)]
    assert min(cookies) >= 1 and len(set(cookies)) == 50
    h.poll_until(lambda: h.aio_in_flight() == 0)
    sent = [r.cookie for r in server.requests()]
    assert len(set(sent)) == 50


@pytest.mark.parametrize("structured", [False, True])
def test_what_is_written_is_read_back(connected, structured):
    _, h = connected(structured=structured)
    data = bytes(range(256)) * 1024
    h.write(12345, data)
    assert h.read(12345, len(data)) == data
    assert h.read(12000, 345) == bytes(345)


@pytest.mark.parametrize("segment", [1, 7, 1000])
def test_replies_may_arrive_in_any_pieces(connected, segment):
    _, h = connected(segment=segment)
    data = bytes(range(251)) * 8
    h.write(0, data)
    assert h.read(0, len(data)) == data


@pytest.mark.parametrize("structured", [False, True])
def test_replies_may_come_in_any_order(connected, structured):
    _, h = connected(structured=structured, command={Cmd.READ: pieces.gathered(20)})
    h.write(0, bytes(i // 512 for i in range(20 * 512)))
    order, buffers = [], []
    for i in range(20):
        buffers.append(buffer(512))
        done = completion(lambda error, i=i: order.append(i) or 1)
        h.aio_pread(buffers[i], 512, i * 512, done, 0)
    h.poll_until(lambda: len(order) == 20)
    assert order == list(range(19, -1, -1))
    assert all(b.raw == bytes([i]) * 512 for i, b in enumerate(buffers))


@pytest.mark.parametrize("structured", [False, True])
def test_largest_payload_is_64_mib(connected, structured):
    size = 64 << 20
    server, h = connected(structured=structured, exports=Export(size * 2), settings={
        "strict_mode": 0})
    h.write(0, bytes([7]) * size)
    assert h.read(0, size) == bytes([7]) * size


@pytest.mark.parametrize("name", ["pread", "pwrite"])
def test_request_beyond_64_mib_is_erange(connected, name):
    server, h = connected({"strict_mode": 0}, exports=Export(1 << 40))
    text = refused(server, h, name, errno.ERANGE, count=(64 << 20) + 1)
    assert "request too large: maximum request size is 67108864" in text


# Strict mode ------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [n for n, row in COMMANDS.items() if row[2]])
def test_command_that_the_server_lacks_is_einval(connected, name):
    server, h = connected(exports=Export(flags=Flag.HAS_FLAGS))
    refused(server, h, name, errno.EINVAL)


def test_trim_that_the_server_lacks_is_told_in_words(connected):
    server, h = connected(exports=Export(flags=Flag.HAS_FLAGS))
    text = refused(server, h, "trim", errno.EINVAL)
    assert text == "nbd_aio_trim: server does not support trim operations: Invalid argument"


@pytest.mark.parametrize("name", ["pwrite", "trim", "zero"])
def test_changing_a_read_only_export_is_eperm(connected, name):
    server, h = connected(exports=Export(flags=Flag.ALL_COMMANDS | Flag.READ_ONLY))
    refused(server, h, name, errno.EPERM)


@pytest.mark.parametrize("name", ["pread", "flush", "cache"])
def test_reading_a_read_only_export_works(connected, name):
    server, h = connected(exports=Export(flags=Flag.ALL_COMMANDS | Flag.READ_ONLY))
    issue(h, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_flag_not_made_for_the_command_is_einval(connected, name):
    server, h = connected(META)
    for flag in (FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO):
        if not flag & COMMANDS[name][1]:
            refused(server, h, name, errno.EINVAL, flags=flag)


@pytest.mark.parametrize("flags", [0x10000, 0x80000000])
@pytest.mark.parametrize("strict", [0, 0x1F])
@pytest.mark.parametrize("name", COMMANDS)
def test_flags_beyond_16_bits_are_never_sent(connected, name, strict, flags):
    server, h = connected({"strict_mode": strict, **META})
    refused(server, h, name, errno.EINVAL, flags=flags)


@pytest.mark.parametrize("lacking, name, flag", [
    (Flag.SEND_FUA, "pwrite", FUA), (Flag.SEND_FUA, "zero", FUA),
    (Flag.SEND_DF, "pread_structured", DF), (Flag.SEND_FAST_ZERO, "zero", FAST_ZERO)])
def test_flag_that_the_server_lacks_is_einval(connected, lacking, name, flag):
    server, h = connected(exports=Export(flags=Flag.ALL_COMMANDS & ~lacking))
    refused(server, h, name, errno.EINVAL, flags=flag)


@pytest.mark.parametrize("name", RANGED)
@pytest.mark.parametrize("offset, count", [
    (SIZE, 1), (SIZE - 511, 512), (SIZE + 1, 1), (1 << 63, 512), ((1 << 64) - 512, 512),
    ((1 << 64) - 1, 1)])
def test_range_beyond_the_export_is_out_of_bounds(connected, name, offset, count):
    server, h = connected(META)
    code = errno.ENOSPC if name in ("pwrite", "trim", "zero") else errno.EINVAL
    text = refused(server, h, name, code, offset=offset, count=count)
    assert "request out of bounds" in text


@pytest.mark.parametrize("name", RANGED)
def test_range_up_to_the_last_byte_is_in_bounds(connected, name):
    server, h = connected(META)
    issue(h, name, offset=SIZE - 512)
    issue(h, name, offset=SIZE - 1, count=1)


@pytest.mark.parametrize("name", RANGED)
def test_count_of_0_is_einval(connected, name):
    server, h = connected(META)
    assert "count cannot be 0" in refused(server, h, name, errno.EINVAL, count=0)


@pytest.mark.parametrize("name", RANGED)
@pytest.mark.parametrize("offset, count", [(0, 511), (0, 513), (1, 512), (511, 512)])
def test_request_off_the_minimum_block_is_einval(connected, name, offset, count):
    server, h = connected(META, exports=Export(block_size=(512, 4096, 1 << 25)))
    refused(server, h, name, errno.EINVAL, offset=offset, count=count)
    issue(h, name, offset=512, count=512)


def test_without_advertised_block_size_any_alignment_goes(ready):
    _, h = ready
    h.write(3, b"abc")
    assert h.read(1, 7) == b"\0\0abc\0\0"


@pytest.mark.parametrize("strict_off, script, how", [
    (STRICT_COMMANDS, {"exports": Export(flags=Flag.HAS_FLAGS)}, {"name": "trim"}),
    (STRICT_FLAGS, {}, {"name": "pwrite", "flags": NO_HOLE}),
    (STRICT_BOUNDS, {}, {"name": "pread", "offset": SIZE}),
    (STRICT_BOUNDS, {}, {"name": "pread", "offset": (1 << 64) - 1}),
    (STRICT_ZERO_SIZE, {}, {"name": "pread", "count": 0}),
    (STRICT_ALIGN, {"exports": Export(block_size=(512, 512, 1 << 20))},
     {"name": "pread", "count": 1, "offset": 1}),
])
def test_each_strict_check_can_be_switched_off_alone(connected, strict_off, script, how):
    server, h = connected({"strict_mode": 0x1F & ~strict_off}, **script)
    try:
        issue(h, **how)
    except NbdError as e:               # the server's answer, not our own check
        assert "command failed" in e.text
    assert len(server.requests()) == 1
    assert h.aio_is_ready()


def test_strict_mode_may_change_while_connected(ready):
    server, h = ready
    refused(server, h, "pread", errno.EINVAL, offset=SIZE)
    h.set_strict_mode(0)
    with pytest.raises(NbdError) as e:
        issue(h, "pread", offset=SIZE)
    assert "nbd_pread: read: command failed: " in e.value.text


@needs("get_extended_headers_negotiated")
@pytest.mark.parametrize("name", ["pread", "pwrite"])
def test_payload_beyond_the_server_s_maximum_is_refused(connected, name):
    server, h = connected(exports=Export(8 << 20, block_size=(1, 4096, 2 << 20)))
    refused(server, h, name, errno.ERANGE, count=(2 << 20) + 1)
    issue(h, name, count=2 << 20)


@needs("get_extended_headers_negotiated")
@pytest.mark.parametrize("name", ["trim", "cache", "zero"])
def test_commands_without_payload_know_no_payload_limit(connected, name):
    server, h = connected(META, exports=Export(block_size=(1, 4096, 65536)))
    issue(h, name, count=SIZE)


@better("the other cuts the length to 32 bits")
@pytest.mark.parametrize("name", ["trim", "cache", "zero", "block_status"])
def test_length_beyond_32_bits_is_never_cut(connected, name):
    server, h = connected({"strict_mode": 0, **META}, exports=Export(1 << 40))
    refused(server, h, name, errno.ERANGE, count=1 << 32)


# Reads that fail must not show what was in the buffer -------------------------------------

def test_failed_read_leaves_zeroes_not_old_memory(connected):
    _, h = connected(any_command=pieces.command_error(5))
    data = buffer(b"secret" * 100)
    with pytest.raises(NbdError):
        h.pread(data, 600, 0, 0)
    assert data.raw == bytes(600)


def unread(h, name, **how):
    """What is in the buffer when the read fails before it was sent."""
    data = buffer(b"secret" * 100)
    last = {"pread_structured": [Callback(CHUNK), 0], "aio_pread": [completion(), 0],
            "aio_pread_structured": [Callback(CHUNK), completion(), 0]}.get(name, [0])
    with pytest.raises(NbdError):
        h.call(name, data, 600, how.get("offset", 0), *last)
    return data.raw


READS = ["pread", "pread_structured", "aio_pread", "aio_pread_structured"]


@pytest.mark.parametrize("name", READS)
def test_a_read_that_fails_before_it_is_sent_leaves_zeroes(connected, handle, name):
    _, h = connected()
    assert unread(handle(), name) == bytes(600)
    assert unread(h, name, offset=1 << 50) == bytes(600)
    h.set_pread_initialize(False)
    assert unread(h, name, offset=1 << 50) == b"secret" * 100


def test_without_initialising_the_buffer_is_left_alone(connected):
    _, h = connected({"pread_initialize": False}, any_command=pieces.command_error(5))
    data = buffer(b"secret" * 100)
    with pytest.raises(NbdError):
        h.pread(data, 600, 0, 0)
    assert data.raw == b"secret" * 100


def test_a_failed_command_leaves_the_others_alone(connected):
    _, h = connected(command={Cmd.READ: pieces.in_turn(
        pieces.usual, pieces.command_error(5), pieces.usual)})
    assert h.read(0, 4) == bytes(4)
    with pytest.raises(NbdError):
        h.read(0, 4)
    assert h.read(0, 4) == bytes(4)


def test_chunk_types_of_errors_are_alike(connected):
    _, h = connected(command={Cmd.READ: pieces.in_turn(
        pieces.chunks((Chunk.ERROR, error_payload(28, b"text"))),
        pieces.chunks((Chunk.ERROR_OFFSET, lambda r: error_payload(28, b"", r.offset))))})
    for _ in range(2):
        with pytest.raises(NbdError) as e:
            h.read(512, 512)
        assert e.value.errno == errno.ENOSPC
    assert h.aio_is_ready()
