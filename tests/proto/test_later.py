"""Calls that came after the distribution's version and stand in no other file: waiting for
another descriptor too, statistics, sizes and versions; and waiting under signals."""
import os
import signal
import threading
import time

import pytest

from tests.harness import pieces
from tests.harness.nbd_ctypes import Handle, NbdError, buffer, completion
from tests.harness.script_server import Export
from tests.harness.wait import Stopwatch
from tests.proto.marks import better, needs


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


# nbd_poll2 --------------------------------------------------------------------------------

@needs("poll2")
def test_poll2_returns_when_the_other_descriptor_is_ready(connected, pipe):
    _, h = connected(any_command=pieces.stall)
    h.aio_pread(buffer(8), 8, 0, None, 0)
    while h.poll2(pipe[0], 0) == 1:
        pass
    threading.Timer(0.1, os.write, (pipe[1], b"x")).start()
    watch = Stopwatch()
    assert h.poll2(pipe[0], 20_000) == 1
    assert watch.quiet() < 10
    assert os.read(pipe[0], 1) == b"x"


@needs("poll2")
def test_poll2_drives_the_handle_as_poll_does(ready, pipe):
    _, h = ready
    done = completion(lambda error: 1)
    h.aio_pread(buffer(8), 8, 0, done, 0)
    while not done.calls:
        assert h.poll2(pipe[0], 5000) == 1
    assert done.calls == [0]


@needs("poll2")
def test_poll2_keeps_its_time_limit(connected, pipe):
    _, h = connected(any_command=pieces.stall)
    watch = Stopwatch()
    while h.poll2(pipe[0], 100) == 1:
        pass
    assert 0.05 < watch() and watch.quiet() < 5


@needs("poll2")
def test_poll2_without_another_descriptor_is_poll(ready):
    _, h = ready
    assert h.poll2(-1, 50) == 0


# Statistics -------------------------------------------------------------------------------

def stats(h):
    return tuple(h.call("stats_" + name) for name in (
        "bytes_sent", "chunks_sent", "bytes_received", "chunks_received"))


@needs("stats_bytes_sent")
def test_statistics_count_bytes_and_messages(connected):
    server, h = connected(structured=False)
    before = stats(h)
    h.write(0, bytes(1000))
    h.read(0, 500)
    after = stats(h)
    assert [b - a for a, b in zip(before, after)] == [
        28 + 1000 + 28, 2, 16 + 16 + 500, 2]
    assert after[0] == server.received
    server.wait_for(lambda: after[2] == server.session().sent)


@needs("stats_bytes_sent")
def test_statistics_start_at_zero_and_outlive_the_connection(ready, handle):
    assert stats(handle()) == (0, 0, 0, 0)
    server, h = ready
    h.shutdown(0)
    server.wait_for(lambda: server.session().ended)
    assert stats(h)[0] == server.received


# Sizes, versions --------------------------------------------------------------------------

@needs("get_handle_size", "get_version_extra", "supports_vsock")
def test_what_the_library_tells_of_itself(handle):
    h = handle()
    assert 0 < h.get_handle_size() <= 9 << 10
    assert h.get_version_extra() is not None
    assert h.supports_vsock() in (0, 1)


@needs("set_tls_hostname", "set_tls_priority")
@pytest.mark.parametrize("name, value", [
    ("tls_hostname", "example.org"), ("tls_priority", "NORMAL"),
    ("request_meta_context", 0), ("request_extended_headers", 0),
    ("socket_activation_name", "web")])
def test_later_settings_are_kept(handle, name, value):
    h = handle()
    h.call("set_" + name, value)
    assert h.call("get_" + name) == value


@needs("get_subprocess_pid")
def test_without_a_subprocess_there_is_no_pid(handle):
    with pytest.raises(NbdError):
        handle().get_subprocess_pid()


@needs("get_handle_size")
def test_payload_limit_of_the_server_is_told(connected):
    """Between 1 and 64 MiB."""
    for advertised, limit in ((65536, 1), (2 << 20, 2), (0xFFFFFFFF, 64)):
        _, h = connected(exports=Export(1 << 40, block_size=(1, 4096, advertised)))
        assert h.get_block_size(3) == limit << 20


# Waiting under signals --------------------------------------------------------------------

@pytest.fixture
def signals():
    """A signal every 5 ms that interrupts system calls."""
    old = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def test_signals_do_not_fail_a_command(connected, signals):
    release = threading.Event()
    _, h = connected(any_command=pieces.released_by(release))
    threading.Timer(0.2, release.set).start()
    assert h.read(0, 8) == bytes(8)


@better("the other starts its time anew at each signal")
def test_signals_do_not_prolong_a_time_limit(connected, signals):
    _, h = connected(any_command=pieces.stall)
    h.aio_pread(buffer(8), 8, 0, None, 0)
    watch = Stopwatch()
    while h.poll(200) == 1:
        pass
    assert watch.quiet() < 3


def test_handle_can_be_closed_by_another_thread(ready):
    """The last user of a handle need not be the thread that made it."""
    _, h = ready
    thread = threading.Thread(target=h.close)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_many_handles_come_and_go(serve):
    server = serve()
    began = time.monotonic()
    for n in range(100):
        with Handle() as h:
            h.connect_uri(server.uri())
            assert h.read(n, 8) == bytes(8)
            h.shutdown(0)
    assert time.monotonic() - began < 30
