"""Ending a connection: in order, abandoning, and when the other side ends it."""
import errno
import threading

import pytest

from tests.harness import pieces
from tests.harness.nbd_ctypes import NbdError, buffer, completion
from tests.harness.nbd_proto import Cmd, Opt
from tests.harness.script_server import Export

ABANDON = 0x10000


def types(server):
    return [r.type for r in server.requests()]


def test_shutdown_sends_disconnect_and_closes(ready):
    server, h = ready
    h.shutdown(0)
    server.wait_for(lambda: server.session().ended)
    assert types(server) == [Cmd.DISC]
    assert h.aio_is_closed()


def test_shutdown_waits_for_commands_in_flight(connected):
    release = threading.Event()
    server, h = connected(command={Cmd.READ: pieces.released_by(release)})
    cb = completion(lambda error: 1)
    h.aio_pread(buffer(512), 512, 0, cb, 0)
    threading.Timer(0.2, release.set).start()
    h.shutdown(0)
    assert cb.calls == [0] and cb.sound
    assert types(server) == [Cmd.READ, Cmd.DISC]
    assert h.aio_is_closed()


def test_close_alone_sends_no_disconnect(ready):
    server, h = ready
    h.close()
    server.wait_for(lambda: server.session().ended)
    assert types(server) == []


def test_abandon_drops_what_was_not_sent(connected):
    """A large write fills the socket; what waits behind it is abandoned."""
    release = threading.Event()
    server, h = connected(exports=Export(1 << 30),
                          option={Opt.GO: pieces.then_wait_for(release)})
    data = buffer(32 << 20)
    first = completion(lambda error: 1)
    h.aio_pwrite(data, len(data), 0, first, 0)
    behind = [completion(lambda error: 1) for _ in range(3)]
    for cb in behind:
        h.aio_flush(cb, 0)
    threading.Timer(0.2, release.set).start()
    h.shutdown(ABANDON)
    assert all(cb.calls in ([errno.ESHUTDOWN], [errno.ENOTCONN]) and cb.sound
               for cb in behind)
    assert first.sound
    server.wait_for(lambda: server.session().ended)
    assert Cmd.FLUSH not in types(server)


def test_aio_disconnect_ends_the_connection(ready):
    server, h = ready
    h.aio_disconnect(0)
    h.poll_until(lambda: h.aio_is_closed() or h.aio_is_dead())
    server.wait_for(lambda: server.session().ended)
    assert types(server) == [Cmd.DISC]


def test_shutdown_when_the_server_is_gone_already(ready):
    server, h = ready
    server.close()
    try:
        h.shutdown(0)
    except NbdError:
        pass
    assert h.state() in ("CLOSED", "DEAD")


def test_what_was_negotiated_stays_known_after_shutdown(ready):
    server, h = ready
    h.shutdown(0)
    assert h.get_size() == 1 << 20
    assert h.can_flush() == 1
    assert h.is_read_only() == 0
    assert h.get_export_name() == ""
    assert h.get_uri() == server.uri()


def test_opt_abort_ends_the_negotiation(serve, handle):
    server, h = serve(), handle(opt_mode=True)
    h.connect_uri(server.uri())
    h.opt_abort()
    server.wait_for(lambda: server.session().ended)
    assert h.aio_is_closed()
    assert server.options()[-1].number == Opt.ABORT


def test_server_that_closes_while_idle_is_noticed(ready):
    server, h = ready
    server.close()
    with pytest.raises(NbdError):
        h.read(0, 512)
    assert h.state() in ("CLOSED", "DEAD")
    with pytest.raises(NbdError) as e:
        h.read(0, 512)
    assert "invalid state" in e.value.text


def test_nothing_is_sent_after_disconnect(ready):
    server, h = ready
    h.aio_disconnect(0)
    with pytest.raises(NbdError):
        h.aio_flush(completion(), 0)
    server.wait_for(lambda: server.session().ended)
    assert types(server) == [Cmd.DISC]
