"""Callbacks: called as documented, freed exactly once after their last call, whatever
happens to the command."""
import contextlib
import errno

import pytest

from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_ctypes import (CHUNK, CONTEXT, EXTENT, EXTENT64, LIST, Callback,
                                      Handle, NbdError, buffer, completion)
from tests.harness.nbd_proto import Chunk, Cmd, Opt, Rep
from tests.harness.script_server import Export
from tests.proto.marks import needs

META = {"meta": ["base:allocation"]}
ASYNC = {
    "pread": lambda h, cb, **k: h.aio_pread(buffer(512), 512, k.get("offset", 0), cb, 0),
    "pwrite": lambda h, cb, **k: h.aio_pwrite(buffer(512), 512, k.get("offset", 0), cb, 0),
    "trim": lambda h, cb, **k: h.aio_trim(512, k.get("offset", 0), cb, 0),
    "zero": lambda h, cb, **k: h.aio_zero(512, k.get("offset", 0), cb, 0),
    "cache": lambda h, cb, **k: h.aio_cache(512, k.get("offset", 0), cb, 0),
}


def done(h):
    return lambda: h.aio_in_flight() == 0


@pytest.mark.parametrize("name", ASYNC)
def test_completion_is_called_and_freed_once(ready, name):
    _, h = ready
    cb = completion()
    cookie = ASYNC[name](h, cb)
    h.poll_until(done(h))
    assert cb.calls == [0]
    assert h.aio_command_completed(cookie) == 1
    assert cb.calls == [0] and cb.sound


def test_frees_follow_the_documented_order(ready):
    """Callbacks libnbd(3): mid-command callbacks, completion, then their frees."""
    _, h = ready
    order = []
    chunk, last = Callback(CHUNK, lambda *a: order.append("chunk")), completion(
        lambda error: order.append("completion"))
    chunk.on_free = lambda: order.append("chunk free")
    last.on_free = lambda: order.append("completion free")
    cookie = h.aio_pread_structured(buffer(512), 512, 0, chunk, last, 0)
    h.poll_until(done(h))
    assert order == ["chunk", "completion"]             # they live as long as the command
    assert h.aio_peek_command_completed() == cookie
    assert order == ["chunk", "completion"]
    h.aio_command_completed(cookie)
    assert order == ["chunk", "completion", "chunk free", "completion free"]


def test_commands_that_nobody_retires_are_freed_at_close(ready):
    _, h = ready
    cb = completion()
    ASYNC["pread"](h, cb)
    h.poll_until(done(h))
    assert cb.calls == [0] and cb.frees == 0
    h.close()
    assert cb.calls == [0] and cb.sound


def test_commands_of_a_connection_that_ended_are_freed_when_retired(connected):
    _, h = connected(any_command=pieces.hang_up)
    cb = completion()
    cookie = ASYNC["pread"](h, cb)
    with contextlib.suppress(NbdError):
        h.poll_until(done(h))
    assert cb.calls == [errno.ENOTCONN] and cb.frees == 0
    with pytest.raises(NbdError) as e:
        h.aio_command_completed(cookie)
    assert e.value.errno == errno.ENOTCONN and cb.sound


@pytest.mark.parametrize("name", ASYNC)
def test_completion_is_freed_when_the_call_is_refused(ready, name):
    server, h = ready
    cb = completion()
    with pytest.raises(NbdError):
        ASYNC[name](h, cb, offset=1 << 50)
    assert cb.calls == [] and cb.sound
    assert server.requests() == []


def test_completion_sees_the_errno_of_a_failed_command(connected):
    _, h = connected(any_command=pieces.command_error(28))
    cb = completion()
    cookie = ASYNC["pread"](h, cb)
    h.poll_until(lambda: cb.calls)
    assert cb.calls == [errno.ENOSPC]
    with pytest.raises(NbdError) as e:
        h.aio_command_completed(cookie)
    assert e.value.errno == errno.ENOSPC
    assert cb.sound
    assert h.aio_command_completed(cookie) == 0         # retired


def test_completion_that_returns_1_retires_the_command(ready):
    _, h = ready
    cb = completion(lambda error: 1)
    cookie = ASYNC["pread"](h, cb)
    h.poll_until(lambda: cb.calls)
    assert cb.sound
    assert h.aio_command_completed(cookie) == 0
    with pytest.raises(NbdError) as e:
        h.aio_peek_command_completed()
    assert e.value.errno == errno.EINVAL


@pytest.mark.parametrize("returned", [2, -2, -1, 0])
def test_completion_that_returns_another_value_leaves_the_command(ready, returned):
    _, h = ready
    cb = completion(lambda error: returned)
    cookie = ASYNC["pread"](h, cb)
    h.poll_until(lambda: cb.calls)
    assert cb.frees == 0
    assert h.aio_command_completed(cookie) == 1 and cb.sound


@pytest.mark.parametrize("server, written, returned, told", [
    (0, errno.ENOMEM, -1, errno.ENOMEM),                # sets the command's errno
    (0, None, -1, 0), (0, 0, -1, 0),                    # not without one
    (0, errno.ENOMEM, -2, 0), (0, errno.ENOMEM, 0, 0),  # -1 alone is a failure
    (28, errno.ENOMEM, -1, errno.ENOMEM),               # replaces the server's
    (28, 0, -1, errno.ENOSPC),                          # but does not take it back
    (28, errno.ENOMEM, -2, errno.ENOSPC), (28, 0, 0, errno.ENOSPC)])
def test_errno_of_a_completion_that_fails(connected, server, written, returned, told):
    _, h = connected(any_command=pieces.command_error(server) if server else None)

    def done_with(error):
        if written is not None:
            error[0] = written
        return returned
    cookie = ASYNC["pread"](h, completion(done_with))
    h.poll_until(done(h))
    if not told:
        assert h.aio_command_completed(cookie) == 1
        return
    with pytest.raises(NbdError) as e:
        h.aio_command_completed(cookie)
    assert e.value.errno == told


def test_commands_in_flight_at_close_are_freed(connected):
    server, h = connected(any_command=pieces.stall)
    callbacks = [completion() for _ in range(3)]
    for cb in callbacks:
        ASYNC["pread"](h, cb)
    server.wait_for(server.requests)
    h.close()
    assert all(cb.sound for cb in callbacks)


def test_commands_in_flight_when_the_server_goes_fail_and_are_freed(connected):
    server, h = connected(any_command=pieces.hang_up)
    callbacks = [completion() for _ in range(3)]
    cookies = [ASYNC["pread"](h, cb) for cb in callbacks]
    with pytest.raises(NbdError):
        h.poll_until(lambda: False)
    assert h.state() in ("DEAD", "CLOSED")
    assert all(cb.calls == [errno.ENOTCONN] for cb in callbacks)
    for cookie in cookies:
        with pytest.raises(NbdError) as e:
            h.aio_command_completed(cookie)
        assert e.value.errno == errno.ENOTCONN
    assert all(cb.sound for cb in callbacks)


def test_commands_complete_in_the_order_of_peek(connected):
    _, h = connected(command={Cmd.READ: pieces.gathered(3)})
    cookies = [ASYNC["pread"](h, None) for _ in range(3)]
    h.poll_until(done(h))
    seen = []
    for _ in range(3):
        seen.append(h.aio_peek_command_completed())
        assert h.aio_peek_command_completed() == seen[-1]
        assert h.aio_command_completed(seen[-1]) == 1
    assert seen == cookies[::-1]


def test_peek_is_0_while_all_are_in_flight(connected):
    _, h = connected(any_command=pieces.stall)
    ASYNC["pread"](h, None)
    assert h.aio_peek_command_completed() == 0


def test_completed_of_unknown_cookies(ready):
    _, h = ready
    with pytest.raises(NbdError) as e:
        h.aio_command_completed(0)
    assert e.value.errno == errno.EINVAL
    assert h.aio_command_completed(12345) == 0


# Chunks -----------------------------------------------------------------------------------

def two_parts(request):
    """READ answered as data, a hole, and data."""
    third = request.length // 4
    o = request.offset
    return ((Chunk.OFFSET_DATA, p.offset_data(o, b"a" * third)),
            (Chunk.OFFSET_HOLE, p.offset_hole(o + third, third * 2)),
            (Chunk.OFFSET_DATA, p.offset_data(o + 3 * third, b"b" * third)))


def parted(session, request):
    return session.reply(request, two_parts(request))


def test_chunk_callback_sees_every_chunk(connected):
    _, h = connected(command={Cmd.READ: parted})
    data, seen = buffer(b"x" * 4096), Callback(CHUNK)
    h.pread_structured(data, 4096, 8192, seen, 0)
    assert seen.calls == [(b"a" * 1024, 8192, 1, 0), (2048, 9216, 2, 0),
                          (b"b" * 1024, 11264, 1, 0)]
    assert seen.sound
    assert data.raw == b"a" * 1024 + bytes(2048) + b"b" * 1024


def test_chunk_callback_works_with_simple_replies(connected):
    _, h = connected(structured=False)
    h.write(512, b"z" * 512)
    seen = Callback(CHUNK)
    h.pread_structured(buffer(512), 512, 512, seen, 0)
    assert seen.calls == [(b"z" * 512, 512, 1, 0)] and seen.sound


def test_chunk_callback_is_told_of_an_error_at_an_offset(connected):
    _, h = connected(command={Cmd.READ: pieces.chunks(
        (Chunk.OFFSET_DATA, lambda r: p.offset_data(r.offset, b"q" * 512)),
        (Chunk.ERROR_OFFSET, lambda r: p.error_payload(5, b"bad sector", r.offset + 512)))})
    seen = Callback(CHUNK)
    with pytest.raises(NbdError) as e:
        h.pread_structured(buffer(1024), 1024, 4096, seen, 0)
    assert e.value.errno == errno.EIO
    assert seen.calls == [(b"q" * 512, 4096, 1, 0), (0, 4608, 3, errno.EIO)]
    assert seen.sound


def test_chunk_callback_that_fails_fails_the_command_and_hears_the_rest(connected):
    _, h = connected(command={Cmd.READ: parted})

    def fail(data, count, offset, status, error):
        error[0] = errno.EPROTO
        return -1
    seen = Callback(CHUNK, fail)
    with pytest.raises(NbdError) as e:
        h.pread_structured(buffer(4096), 4096, 0, seen, 0)
    assert e.value.errno == errno.EPROTO
    assert [call[3] for call in seen.calls] == [0, errno.EPROTO, errno.EPROTO]
    assert seen.sound and h.aio_is_ready()


def test_failing_callback_without_an_errno_is_eproto(connected):
    _, h = connected(command={Cmd.READ: parted})
    seen = Callback(CHUNK, lambda *a: -1)
    with pytest.raises(NbdError) as e:
        h.pread_structured(buffer(4096), 4096, 0, seen, 0)
    assert e.value.errno == errno.EPROTO


@pytest.mark.parametrize("returned", [-2, -(1 << 31), 1])
def test_chunk_callback_fails_by_minus_1_alone(connected, returned):
    _, h = connected(command={Cmd.READ: parted})

    def odd(data, count, offset, status, error):
        error[0] = errno.ENOMEM
        return returned
    seen = Callback(CHUNK, odd)
    h.pread_structured(buffer(4096), 4096, 0, seen, 0)
    assert [call[3] for call in seen.calls] == [0, 0, 0] and seen.sound


def test_first_error_of_a_command_wins(connected):
    _, h = connected(command={Cmd.READ: pieces.chunks(
        (Chunk.ERROR_OFFSET, lambda r: p.error_payload(28, b"", r.offset)),
        (Chunk.ERROR, p.error_payload(12)))})
    with pytest.raises(NbdError) as e:
        h.read(0, 512)
    assert e.value.errno == errno.ENOSPC


@pytest.mark.parametrize("asynchronous", [False, True])
def test_all_callbacks_of_a_refused_call_are_freed(connected, asynchronous):
    _, h = connected(META)
    chunk, extent, c1, c2 = Callback(CHUNK), Callback(EXTENT), completion(), completion()
    with pytest.raises(NbdError):
        if asynchronous:
            h.aio_pread_structured(buffer(1), 1, 1 << 60, chunk, c1, 0)
        else:
            h.pread_structured(buffer(1), 1, 1 << 60, chunk, 0)
    with pytest.raises(NbdError):
        if asynchronous:
            h.aio_block_status(1, 1 << 60, extent, c2, 0)
        else:
            h.block_status(1, 1 << 60, extent, 0)
    used = [chunk, extent] + ([c1, c2] if asynchronous else [])
    assert all(cb.sound and not cb.calls for cb in used)


# Lists and contexts -----------------------------------------------------------------------

def test_list_and_context_callbacks_are_freed_once(serve, handle):
    server, h = serve(), handle(opt_mode=True)
    h.connect_uri(server.uri())
    names, contexts = Callback(LIST), Callback(CONTEXT)
    assert h.opt_list(names) == 1
    assert h.opt_list_meta_context(contexts) == 1
    assert names.calls == [(b"", b"")] and names.sound
    assert contexts.calls == [b"base:allocation"] and contexts.sound


@pytest.mark.parametrize("option", [Opt.LIST, Opt.LIST_META_CONTEXT])
def test_list_callbacks_are_freed_when_the_server_refuses(serve, handle, option):
    server = serve(option={option: pieces.option_error(Rep.ERR_POLICY, b"no")})
    h = handle(opt_mode=True)
    h.connect_uri(server.uri())
    cb = Callback(LIST if option == Opt.LIST else CONTEXT)
    with pytest.raises(NbdError):
        (h.opt_list if option == Opt.LIST else h.opt_list_meta_context)(cb)
    assert cb.calls == [] and cb.sound
    assert h.aio_is_negotiating()


@pytest.mark.parametrize("returned", [-1, -2, 1])
def test_what_list_and_context_callbacks_return_does_not_matter(serve, handle, returned):
    server, h = serve(exports={"a": Export(), "b": Export()}), handle(opt_mode=True)
    h.connect_uri(server.uri())
    h.set_export_name("a")
    names, contexts = Callback(LIST, lambda *a: returned), Callback(CONTEXT, lambda *a: returned)
    assert h.opt_list(names) == 2 and len(names.calls) == 2
    assert h.opt_list_meta_context(contexts) == 1
    assert names.sound and contexts.sound and h.aio_is_negotiating()


def test_option_callbacks_are_freed_after_the_completion(serve, handle):
    server, h = serve(), handle(opt_mode=True)
    h.connect_uri(server.uri())
    order = []
    names = Callback(LIST, lambda *a: order.append("list"))
    last = completion(lambda error: order.append("completion"))
    names.on_free = lambda: order.append("list free")
    last.on_free = lambda: order.append("completion free")
    h.aio_opt_list(names, last)
    h.poll_until(lambda: not h.aio_is_connecting())
    assert order == ["list", "completion", "list free", "completion free"]


@pytest.mark.parametrize("name", ["opt_go", "opt_info", "opt_list", "opt_list_meta_context"])
def test_option_completions_are_called_and_freed_once(serve, handle, name):
    server, h = serve(), handle(opt_mode=True)
    h.connect_uri(server.uri())
    cb, extra = completion(), []
    if name == "opt_list":
        extra = [Callback(LIST)]
    elif name == "opt_list_meta_context":
        extra = [Callback(CONTEXT)]
    h.call("aio_" + name, *extra, cb)
    h.poll_until(lambda: not h.aio_is_connecting())
    assert cb.calls == [0] and cb.sound
    assert all(e.sound for e in extra)


def test_option_completion_sees_the_refusal(serve, handle):
    server, h = serve(exports={}), handle(opt_mode=True)
    h.connect_uri(server.uri())
    cb = completion()
    h.aio_opt_go(cb)
    h.poll_until(lambda: not h.aio_is_connecting())
    assert len(cb.calls) == 1 and cb.calls[0] != 0 and cb.sound
    assert h.aio_is_negotiating()


def test_option_callbacks_are_freed_at_close(serve):
    server, h = serve(option={Opt.LIST: pieces.stall}), Handle()
    h.set_opt_mode(True)
    h.connect_uri(server.uri())
    names, cb = Callback(LIST), completion()
    h.aio_opt_list(names, cb)
    h.poll(10)
    h.close()
    assert names.sound and cb.sound


def test_option_callbacks_are_freed_when_the_server_goes(serve, handle):
    server, h = serve(option={Opt.LIST: pieces.hang_up}), handle(opt_mode=True)
    h.connect_uri(server.uri())
    names, cb = Callback(LIST), completion()
    h.aio_opt_list(names, cb)
    with pytest.raises(NbdError):
        h.poll_until(lambda: False)
    assert names.sound and cb.sound and len(cb.calls) == 1 and cb.calls[0] != 0


# Extents ----------------------------------------------------------------------------------

def test_extent_callback_is_called_once_a_context_with_pairs(connected):

    export = Export(contexts={"base:allocation": lambda o, n: [(n // 2, 0), (n - n // 2, 3)],
                              "x:colour": lambda o, n: [(n, 77)]})
    _, h = connected({"meta": ["base:allocation", "x:colour"]}, exports=export)
    seen = Callback(EXTENT)
    h.block_status(8192, 4096, seen, 0)
    assert sorted(seen.calls) == [
        (b"base:allocation", 4096, [(4096, 0), (4096, 3)], 0),
        (b"x:colour", 4096, [(8192, 77)], 0)]
    assert seen.sound


TWO_CONTEXTS = Export(contexts={"base:allocation": lambda o, n: [(n, 0)],
                                "x:colour": lambda o, n: [(n, 77)]})


@pytest.mark.parametrize("kind", [
    EXTENT, pytest.param(EXTENT64, marks=needs("block_status_64"))])
@pytest.mark.parametrize("returned, written, told", [
    (-1, None, errno.EPROTO), (-1, errno.ENOSPC, errno.ENOSPC), (-2, errno.ENOSPC, 0),
    (1, errno.ENOSPC, 0)])
def test_extent_callback_fails_by_minus_1_and_hears_the_rest(connected, kind, returned,
                                                             written, told):
    _, h = connected({"meta": list(TWO_CONTEXTS.contexts)}, exports=TWO_CONTEXTS)

    def odd(name, offset, entries, n, error):
        if written is not None:
            error[0] = written
        return returned
    seen = Callback(kind, odd)
    call = h.block_status if kind is EXTENT else h.block_status_64
    if told:
        with pytest.raises(NbdError) as e:
            call(8192, 0, seen, 0)
        assert e.value.errno == told
    else:
        call(8192, 0, seen, 0)
    assert [c[3] for c in seen.calls] == [0, told] and seen.sound


def test_extent_callback_that_fails_fails_the_command(connected):
    def fail(name, offset, entries, n, error):
        error[0] = errno.EPROTO
        return -1
    _, h = connected(META)
    seen = Callback(EXTENT, fail)
    with pytest.raises(NbdError) as e:
        h.block_status(8192, 0, seen, 0)
    assert e.value.errno == errno.EPROTO
    assert seen.sound and h.aio_is_ready()


