"""One handle in several threads: what waits for the server keeps nobody from working."""
import threading

import pytest

from tests.harness.nbd_ctypes import DEBUG, Callback, NbdError, buffer, completion
from tests.harness.nbd_proto import Cmd
from tests.harness.script_server import Export, HangUp
from tests.harness.wait import wait_until

BIG = 8 << 20           # more than a socket takes at once


class Flushing:
    """A handle on which a thread waits in nbd_flush, until the end of this block."""

    def __init__(self, connected):
        self.held = []
        self.asked = threading.Event()
        self.server, self.h = connected(command={Cmd.FLUSH: self._hold}, exports=Export(16 << 20))

    def _hold(self, session, message):
        self.held.append((session, session.usual(message)))
        self.asked.set()

    def __enter__(self):
        # By the time the server has the request its sender holds the lock, or waits.
        self.thread = threading.Thread(target=self.h.flush, args=(0,), daemon=True)
        self.thread.start()
        assert self.asked.wait(10)
        return self.h

    def __exit__(self, *_):
        for session, reply in self.held:
            session.send(reply)
        self.thread.join(10)
        assert not self.thread.is_alive()


def returns(function, *arguments):
    """Does it come to its end while the flush is held?"""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_read_does_not_wait_for_the_flush_of_another_thread(connected):
    with Flushing(connected) as h:
        assert returns(h.read, 0, 512)


def test_a_write_that_fills_the_socket_is_sent_while_another_thread_waits(connected):
    with Flushing(connected) as h:
        assert returns(h.write, 0, bytes(BIG))
        assert returns(h.write, 0, bytes(BIG))


def test_many_threads_fill_the_socket_while_another_thread_waits(connected):
    with Flushing(connected) as h:
        threads = [threading.Thread(target=h.write, args=(0, bytes(BIG)), daemon=True)
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not [t for t in threads if t.is_alive()]


def test_requests_left_to_the_thread_that_waits_are_sent_whole(connected):
    data, done = buffer(BIG), [completion(lambda error: 1) for _ in range(3)]
    with Flushing(connected) as h:
        for callback in done:
            h.aio_pwrite(data, BIG, 0, callback, 0)
        wait_until(lambda: all(callback.calls for callback in done))
    assert [callback.calls for callback in done] == [[0]] * 3


def test_the_end_of_the_connection_frees_a_thread_that_waits_for_room(connected):
    asked, hang_up = threading.Event(), threading.Event()
    errors = []

    def deaf(session, message):
        asked.set()
        hang_up.wait(20)
        raise HangUp

    def fail(call, *arguments):
        with pytest.raises(NbdError) as e:
            call(*arguments)
        errors.append(e.value.errno)

    _, h = connected(command={Cmd.FLUSH: deaf}, exports=Export(16 << 20))
    threads = [threading.Thread(target=fail, args=call, daemon=True)
               for call in ((h.flush, 0), (h.write, 0, bytes(BIG)), (h.write, 0, bytes(BIG)))]
    threads[0].start()
    assert asked.wait(10)
    threads[1].start()
    threads[2].start()
    wait_until(lambda: h.stats_bytes_sent() > 10000)
    hang_up.set()
    for thread in threads:
        thread.join(10)
    assert not [t for t in threads if t.is_alive()] and len(errors) == 3
    assert h.state() == 'DEAD'


@pytest.mark.parametrize('first', range(225, 256))
def test_lists_in_the_debug_log_have_an_end(handle, first):
    log = Callback(DEBUG)
    h = handle()
    h.set_debug_callback(log)
    h.set_debug(True)
    h.raw('opt_list_meta_context_queries', [b'x' * first, b'y' * 4000, b'z'], None)
    line = next(text for _, text in log.calls if b'queries=' in text)
    assert len(line) < 300 and b'x' * 200 in line
