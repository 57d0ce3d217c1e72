"""Driving a handle: poll, direction, notify; many commands at once; going out together."""
import errno
import select
import time

import pytest

from tests.harness import pieces
from tests.harness.nbd_ctypes import NbdError, buffer, completion
from tests.harness.nbd_proto import Cmd
from tests.harness.script_server import Export
from tests.proto.marks import better, needs

READ, WRITE = 1, 2


def drive(h, until, timeout=10, spurious=False):
    """An event loop of poll(2), direction and notify, as programs have it."""
    end = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < end, "not done in time"
        poll = select.poll()
        direction = h.aio_get_direction()
        poll.register(h.aio_get_fd(), (select.POLLIN if direction & READ else 0)
                      | (select.POLLOUT if direction & WRITE else 0))
        events = dict(poll.poll(100)).get(h.aio_get_fd(), 0)
        direction = h.aio_get_direction()
        if direction & READ and events & (select.POLLIN | select.POLLHUP):
            h.aio_notify_read()
        elif direction & WRITE and events & select.POLLOUT:
            h.aio_notify_write()
        elif spurious and direction & READ:
            h.aio_notify_read()


def reads(h, count, size=512):
    buffers = [buffer(size) for _ in range(count)]
    return buffers, [h.aio_pread(b, size, 0, completion(lambda error: 1), 0)
                     for b in buffers]


@pytest.mark.parametrize("listen", ["unix", "tcp"])
def test_connecting_by_notify(serve, handle, listen):
    server, h = serve(listen=listen), handle()
    h.aio_connect_uri(server.uri())
    drive(h, h.aio_is_ready)
    assert h.aio_get_direction() == READ


def test_connecting_by_poll(serve, handle):
    server, h = serve(), handle()
    h.aio_connect_uri(server.uri())
    assert h.aio_is_connecting()
    h.poll_until(h.aio_is_ready)


def test_commands_by_notify(ready):
    server, h = ready
    reads(h, 100)
    drive(h, lambda: h.aio_in_flight() == 0)
    assert len(server.requests()) == 100


def test_poll_returns_0_at_its_time_limit(connected):
    _, h = connected(any_command=pieces.stall)
    reads(h, 1)
    while h.poll(0) == 1:
        pass
    began = time.monotonic()
    assert h.poll(200) == 0
    assert 0.15 < time.monotonic() - began < 5
    assert h.poll(0) == 0


def test_poll_returns_1_on_progress(ready):
    _, h = ready
    reads(h, 1)
    assert h.poll(5000) == 1


def test_poll_fails_when_the_server_went_away(ready):
    server, h = ready
    server.close()
    with pytest.raises(NbdError) as e:
        while h.poll(5000) >= 0:
            pass
    assert e.value.text.startswith("nbd_poll: ")
    assert h.state() in ("CLOSED", "DEAD")


def test_in_flight_counts_commands_without_reply(connected):
    server, h = connected(any_command=pieces.stall)
    assert h.aio_in_flight() == 0
    reads(h, 7)
    assert h.aio_in_flight() == 7


def test_a_command_of_an_idle_handle_goes_out_at_once(ready):
    server, h = ready
    reads(h, 1)
    server.wait_for(lambda: len(server.requests()) == 1)


@better("the other stays deaf to the new command")
def test_spurious_notify_read_does_not_wedge_the_handle(ready):
    server, h = ready
    h.aio_notify_read()
    assert h.aio_is_ready()
    assert h.aio_get_direction() & READ
    reads(h, 1)
    drive(h, lambda: h.aio_in_flight() == 0)
    assert len(server.requests()) == 1


@better("the other stays deaf to the new command")
def test_spurious_notify_in_between_changes_nothing(connected):
    server, h = connected(command={Cmd.READ: pieces.gathered(10)})
    for _ in range(10):
        h.aio_notify_read()
        reads(h, 1)
    drive(h, lambda: h.aio_in_flight() == 0, spurious=True)
    assert len(server.requests()) == 10


def test_notify_write_without_anything_to_write_is_einval(ready):
    _, h = ready
    with pytest.raises(NbdError) as e:
        h.aio_notify_write()
    assert e.value.errno == errno.EINVAL
    assert "external event 1 is invalid in state READY" in e.value.text
    assert h.aio_is_ready()


def test_direction_asks_for_write_while_requests_wait(connected):
    _, h = connected(exports=Export(1 << 30), any_command=pieces.deaf)
    data = buffer(8 << 20)
    h.aio_pwrite(data, len(data), 0, None, 0)
    assert h.aio_get_direction() & WRITE
    assert h.aio_in_flight() == 1


def test_many_commands_may_be_in_flight(ready):
    server, h = ready
    buffers, cookies = reads(h, 5000)
    assert len(set(cookies)) == 5000
    h.poll_until(lambda: h.aio_in_flight() == 0, timeout=60)
    assert len(server.requests()) == 5000


def test_large_writes_and_reads_do_not_deadlock(connected):
    """Both directions fill up: the client must read while it still has to write."""
    _, h = connected(exports=Export(1 << 30))
    out = buffer(bytes(range(256)) * 4096)
    back = [buffer(len(out)) for _ in range(8)]
    for i in range(8):
        h.aio_pwrite(out, len(out), i << 20, completion(lambda error: 1), 0)
    for i in range(8):
        h.aio_pread(back[i], len(out), i << 20, completion(lambda error: 1), 0)
    h.poll_until(lambda: h.aio_in_flight() == 0, timeout=60)
    assert h.read(3 << 20, 1 << 20) == out.raw


def test_commands_may_be_issued_from_a_completion_s_aftermath(ready):
    """A chain: each command is issued when the one before is done."""
    server, h = ready
    for _ in range(200):
        done = []
        h.aio_flush(completion(lambda error: done.append(1) or 1), 0)
        h.poll_until(lambda: done)
    assert len(server.requests()) == 200


def test_one_handle_from_many_threads(ready):
    import threading
    server, h = ready
    failures = []

    def work(n):
        try:
            for i in range(50):
                h.write(n * 4096, bytes([n]) * 4096)
                assert h.read(n * 4096, 4096) == bytes([n]) * 4096
        except Exception as e:
            failures.append(e)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert failures == []
    assert len(server.requests()) == 400


def test_many_handles_in_one_loop(serve, handle):
    server = serve()
    handles = [handle() for _ in range(20)]
    for h in handles:
        h.aio_connect_uri(server.uri())
    for h in handles:
        drive(h, h.aio_is_ready)
    kept = [reads(h, 5) for h in handles]
    for h in handles:
        drive(h, lambda: h.aio_in_flight() == 0)
    assert len(kept) == 20 and len(server.requests()) == 100
    for h in handles:
        h.shutdown(0)


def rounds(server, h, n, burst, asks=True):
    """N rounds of a loop of one's own, each with a BURST of requests; the bytes that have left
    when the last burst was issued, before anything is asked or waited for."""
    for i in range(n):
        cbs = [completion(lambda error: 1) for _ in range(burst)]
        before = h.stats_bytes_sent()
        for cb in cbs:
            h.aio_pread(buffer(512), 512, 0, cb, 0)
        sent = h.stats_bytes_sent() - before
        while not all(cb.calls for cb in cbs):
            direction = h.aio_get_direction() if asks else READ
            reads, writes, _ = select.select([h.aio_get_fd()] if direction & READ else [],
                                             [h.aio_get_fd()] if direction & WRITE else [], [], 10)
            assert reads or writes
            if reads:
                h.aio_notify_read()
            else:
                h.aio_notify_write()
    return sent


@needs("stats_bytes_sent")
@pytest.mark.parametrize("burst, asks, held", [
    (4, True, True),        # the loop comes back at once, so four requests leave together
    (1, True, False),       # nothing to wait for
    (4, False, False),      # who never asks would not come back
])
def test_first_request_waits_for_others_only_in_a_loop_that_comes_back(ready, burst, asks, held):
    server, h = ready
    assert rounds(server, h, 1, burst, asks) > 0        # not yet known as a loop
    sent = rounds(server, h, 8, burst, asks)
    assert (sent == 0) == held


@needs("stats_bytes_sent")
def test_loop_that_has_ended_holds_nothing_back(ready):
    """After the direction was asked for, or by other means of going on, all leaves."""
    server, h = ready
    rounds(server, h, 8, 4)
    h.aio_get_direction()
    before, cb = h.stats_bytes_sent(), completion(lambda error: 1)
    h.aio_pread(buffer(512), 512, 0, cb, 0)
    assert h.stats_bytes_sent() > before
    h.poll_until(lambda: cb.calls)
    rounds(server, h, 8, 4)
    assert h.read(0, 512) == bytes(512)
