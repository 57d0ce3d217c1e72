"""Meta contexts and block status."""
import errno

import pytest

from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_ctypes import CONTEXT, EXTENT, Callback, NbdError, completion
from tests.harness.nbd_proto import Chunk, Cmd, Opt, Rep
from tests.harness.script_server import Export
from tests.proto.marks import better, needs

META = {"meta": ["base:allocation"]}


def pattern(offset, length):
    """4 KiB of data and 4 KiB of hole in turn."""
    extents = []
    end = offset + length
    while offset < end:
        stop = min(end, (offset // 4096 + 1) * 4096)
        extents.append((stop - offset, 3 if offset // 4096 % 2 else 0))
        offset = stop
    return extents


def status(h, count, offset, flags=0):
    seen = Callback(EXTENT)
    h.block_status(count, offset, seen, flags)
    return seen.calls


def listed(h):
    found = Callback(CONTEXT)
    count = h.opt_list_meta_context(found)
    assert count == len(found.calls) and found.sound
    return found.calls


EXPORT = {"exports": Export(contexts={"base:allocation": pattern, "base:other": pattern,
                                      "x:y": pattern})}


def test_block_status_tells_the_extents(connected):
    _, h = connected(META, **EXPORT)
    assert status(h, 16384, 0) == [
        (b"base:allocation", 0, [(4096, 0), (4096, 3), (4096, 0), (4096, 3)], 0)]
    assert status(h, 100, 4000) == [(b"base:allocation", 4000, [(96, 0), (4, 3)], 0)]


def test_request_for_one_extent_is_passed_on(connected):
    _, h = connected(META, **EXPORT)
    assert status(h, 16384, 0, flags=8) == [(b"base:allocation", 0, [(4096, 0)], 0)]


def test_several_contexts_are_told_by_name(connected):
    _, h = connected({"meta": ["x:y", "base:allocation"]}, **EXPORT)
    calls = status(h, 4096, 0)
    assert {call[0] for call in calls} == {b"base:allocation", b"x:y"}
    assert len(calls) == 2


def test_without_a_context_block_status_is_not_sent(connected):
    server, h = connected()
    with pytest.raises(NbdError) as e:
        status(h, 512, 0)
    assert e.value.errno == errno.ENOTSUP
    assert server.requests() == []


def test_can_meta_context_tells_what_was_granted(connected):
    _, h = connected({"meta": ["base:allocation", "nobody:knows"]}, **EXPORT)
    assert h.can_meta_context("base:allocation") == 1
    assert h.can_meta_context("nobody:knows") == 0
    assert h.can_meta_context("x:y") == 0


@pytest.mark.parametrize("queries, found", [
    ([], [b"base:allocation", b"base:other", b"x:y"]),
    (["base:"], [b"base:allocation", b"base:other"]),
    (["x:y"], [b"x:y"]), (["z:"], [])])
def test_contexts_can_be_listed(serve, handle, queries, found):
    server, h = serve(**EXPORT), handle(opt_mode=True, meta=queries)
    h.connect_uri(server.uri())
    assert listed(h) == found
    option = server.options()[-1]
    assert option.number == Opt.LIST_META_CONTEXT
    assert p.parse_meta(option.data) == (b"", [q.encode() for q in queries])


def test_listing_without_structured_replies_is_refused(serve, handle):
    server = serve(**EXPORT)
    h = handle(opt_mode=True, request_structured_replies=False)
    h.connect_uri(server.uri())
    with pytest.raises(NbdError):
        listed(h)
    assert h.aio_is_negotiating()


def test_contexts_are_those_of_the_export_gone_to(serve, handle):
    server = serve(exports={"": Export(contexts={}), "x": Export()})
    h = handle(opt_mode=True, **META)
    h.connect_uri(server.uri())
    h.opt_info()
    assert h.can_meta_context("base:allocation") == 0
    h.set_export_name("x")
    h.opt_go()
    assert h.can_meta_context("base:allocation") == 1


@needs("opt_list_meta_context_queries", "opt_set_meta_context_queries")
def test_queries_can_be_given_for_one_call(serve, handle):
    server, h = serve(**EXPORT), handle(opt_mode=True)
    h.connect_uri(server.uri())
    seen = Callback(CONTEXT)
    assert h.opt_list_meta_context_queries(["base:", "x:y"], seen) == 3
    assert seen.sound
    chosen = Callback(CONTEXT)
    h.set_request_meta_context(False)
    assert h.opt_set_meta_context_queries(["x:y"], chosen) == 1
    assert chosen.calls == [b"x:y"]
    h.opt_go()
    assert h.can_meta_context("x:y") == 1
    assert h.can_meta_context("base:allocation") == 0
    assert status(h, 4096, 0)[0][0] == b"x:y"


def answered(connected, *described, settings=META, **fields):
    return connected(settings, command={Cmd.BLOCK_STATUS: pieces.chunks(*described)},
                     **{**EXPORT, **fields})


@pytest.mark.parametrize("segment", [None, 1])
def test_replies_in_small_pieces(connected, segment):
    _, h = connected(META, segment=segment, **EXPORT)
    assert len(status(h, 1 << 16, 0)[0][2]) == 16


@pytest.mark.parametrize("count", [1000, 100_000])
def test_many_extents_arrive_whole(connected, count):
    extents = [(1, n & 3) for n in range(count)]
    _, h = answered(connected, (Chunk.BLOCK_STATUS, p.status_payload(1, extents)))
    assert status(h, count, 0) == [(b"base:allocation", 0, extents, 0)]


def test_last_extent_may_reach_beyond_the_request(connected):
    _, h = answered(connected, (Chunk.BLOCK_STATUS, p.status_payload(1, [(1 << 20, 3)])))
    assert status(h, 512, 0) == [(b"base:allocation", 0, [(1 << 20, 3)], 0)]


def test_error_of_block_status(connected):
    _, h = answered(connected, (Chunk.ERROR, p.error_payload(5, b"text")))
    with pytest.raises(NbdError) as e:
        status(h, 512, 0)
    assert e.value.errno == errno.EIO
    assert e.value.text.startswith("nbd_block_status: block-status: command failed: ")
    assert h.aio_is_ready()


def test_error_after_extents_still_tells_them(connected):
    _, h = answered(connected, (Chunk.BLOCK_STATUS, p.status_payload(1, [(512, 1)])),
                    (Chunk.ERROR, p.error_payload(12)))
    seen = Callback(EXTENT)
    with pytest.raises(NbdError) as e:
        h.block_status(1024, 0, seen, 0)
    assert e.value.errno == errno.ENOMEM
    assert [call[2] for call in seen.calls] == [[(512, 1)]] and seen.sound


BREACHES = {
    "no extent at all": p.status_payload(1, []),
    "half an extent": p.status_payload(1, [(512, 0)])[:-4],
    "no context id": b"\0\0",
}


@pytest.mark.parametrize("name", BREACHES)
def test_malformed_status_ends_the_connection(connected, name):
    _, h = answered(connected, (Chunk.BLOCK_STATUS, BREACHES[name]))
    with pytest.raises(NbdError):
        status(h, 512, 0)
    assert h.state() == "DEAD"


@better("the other says nothing of it")
def test_status_of_a_context_that_was_not_negotiated(connected):
    _, h = answered(connected, (Chunk.BLOCK_STATUS, p.status_payload(77, [(512, 0)])))
    with pytest.raises(NbdError):
        status(h, 512, 0)


@better("the other hands it on")
@pytest.mark.parametrize("extents", [[(0, 0)], [(512, 0), (0, 0)]])
def test_extent_without_length_is_a_breach(connected, extents):
    _, h = answered(connected, (Chunk.BLOCK_STATUS, p.status_payload(1, extents)))
    with pytest.raises(NbdError):
        status(h, 1024, 0)


@better("the other takes it for success")
def test_block_status_without_any_status_is_an_error(connected):
    _, h = answered(connected, (Chunk.NONE, b""))
    with pytest.raises(NbdError) as e:
        status(h, 1024, 0)
    assert e.value.errno in (errno.EPROTO, errno.EIO)


def test_status_in_reply_to_another_command_is_a_breach(connected):
    _, h = connected(META, command={Cmd.FLUSH: pieces.chunks(
        (Chunk.BLOCK_STATUS, p.status_payload(1, [(512, 0)])))})
    with pytest.raises(NbdError):
        h.flush(0)
    assert h.state() == "DEAD"


@pytest.mark.parametrize("reply", [
    p.rep_meta(Opt.SET_META_CONTEXT, 5, b"base:allocation")
    + p.rep_meta(Opt.SET_META_CONTEXT, 6, b"never:asked-for")])
def test_contexts_that_nobody_asked_for_do_no_harm(connected, reply):
    _, h = connected(META, option={Opt.SET_META_CONTEXT: lambda s, o:
                                   reply + p.option_reply(o.number, Rep.ACK)})
    assert h.can_meta_context("base:allocation") == 1
    assert h.read(0, 8) == bytes(8)


def test_asynchronous_block_status(connected):
    _, h = connected(META, **EXPORT)
    seen, done = Callback(EXTENT), completion(lambda e: 1)
    h.aio_block_status(8192, 0, seen, done, 0)
    h.poll_until(lambda: done.calls)
    assert seen.calls[0][2] == [(4096, 0), (4096, 3)]
    assert seen.sound and done.sound
