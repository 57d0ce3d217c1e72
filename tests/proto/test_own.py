"""nbdd.h: the calls that this project adds to libnbd's."""
import contextlib
import ctypes
import errno
import os
import select
import socket
import threading

import pytest

from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_ctypes import (NbdError, addresses, buffer, completion, iovecs,
                                      library)
from tests.harness.nbd_proto import Chunk, Cmd, Flag, Opt
from tests.harness.script_server import Export
from tests.harness.wait import Stopwatch, wait_until
from tests.proto.marks import needs

pytestmark = needs("take_socket", "connect_addresses", "preadv", "get_transmission_flags")
SIMPLE = {"request_structured_replies": False, "request_extended_headers": False}


def fails(h, name, *arguments):
    with pytest.raises(NbdError) as e:
        h.call(name, *arguments)
    assert e.value.text.startswith(f"nbdd_{name}: ")
    return e.value


# nbdd_take_socket -------------------------------------------------------------------------

@contextlib.contextmanager
def taken(h):
    with socket.socket(fileno=h.take_socket()) as sock:
        sock.settimeout(10)
        yield sock


@pytest.mark.parametrize("listen", ["unix", "tcp"])
def test_taken_socket_is_in_the_transmission_phase(serve, handle, listen):
    server, h = serve(listen=listen), handle(**SIMPLE)
    h.connect_uri(server.uri())
    with taken(h) as sock:
        assert h.aio_is_closed()
        h.close()
        sock.sendall(p.request(Cmd.READ, 77, 0, 8))
        assert sock.recv(24, socket.MSG_WAITALL) == p.simple_reply(77, 0, bytes(8))
    assert [r.type for r in server.requests()] == [Cmd.READ]


def test_socket_may_be_taken_after_commands(connected):
    server, h = connected(SIMPLE)
    h.write(0, b"abc")
    assert h.read(0, 3) == b"abc"
    with taken(h) as sock:
        sock.sendall(p.request(Cmd.READ, 1, 0, 3))
        assert sock.recv(19, socket.MSG_WAITALL)[16:] == b"abc"


def test_what_was_negotiated_stays_known_after_taking(connected):
    _, h = connected(SIMPLE)
    with taken(h):
        assert h.get_size() == 1 << 20
        assert h.can_flush() == 1
        assert h.aio_in_flight() == 0
        with pytest.raises(NbdError):
            h.read(0, 8)


def test_socket_of_an_old_server_can_be_taken(connected):
    for style in ("oldstyle", "newstyle"):
        _, h = connected(SIMPLE, style=style)
        with taken(h) as sock:
            sock.sendall(p.request(Cmd.READ, 1, 0, 8))
            assert sock.recv(24, socket.MSG_WAITALL) == p.simple_reply(1, 0, bytes(8))


def test_taking_with_commands_in_flight_is_ebusy(connected):
    server, h = connected(SIMPLE, any_command=pieces.stall)
    h.aio_pread(buffer(8), 8, 0, None, 0)
    assert fails(h, "take_socket").errno == errno.EBUSY
    assert h.aio_in_flight() == 1


def test_taking_with_structured_replies_is_enotsup(ready):
    _, h = ready
    assert fails(h, "take_socket").errno == errno.ENOTSUP
    assert h.read(0, 8) == bytes(8)


def test_taking_with_extended_headers_is_enotsup(connected):
    _, h = connected(extended=True)
    assert fails(h, "take_socket").errno == errno.ENOTSUP


def test_taking_with_bytes_read_ahead_is_eproto(connected):
    """The server says more than the handshake, in the same segment."""
    _, h = connected(SIMPLE, option={Opt.GO: pieces.followed_by(b"junk")})
    assert fails(h, "take_socket").errno == errno.EPROTO


def test_taking_with_bytes_waiting_in_the_socket_is_eproto(connected):
    server, h = connected(SIMPLE)
    server.session().send(b"junk")
    assert select.select([h.aio_get_fd()], [], [], 10)[0]
    assert fails(h, "take_socket").errno == errno.EPROTO


def test_taking_from_a_server_that_hung_up_is_an_error(connected):
    server, h = connected(SIMPLE)
    server.session().sock.shutdown(socket.SHUT_RDWR)
    assert select.select([h.aio_get_fd()], [], [], 10)[0]
    fails(h, "take_socket")


# nbdd_connect_addresses -------------------------------------------------------------------

@contextlib.contextmanager
def black_hole():
    """(host, port) where connecting neither succeeds nor fails: a full backlog."""
    fillers = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        where = listener.getsockname()
        while True:
            filler = socket.socket()
            fillers.append(filler)
            filler.settimeout(0.3)
            try:
                filler.connect(where)
            except TimeoutError:
                break
        yield where
    for filler in fillers:
        filler.close()


def tcp(server):
    return (server.host, server.port)


def refused():
    """(host, port) where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()


def connect(h, *where):
    return h.connect_addresses(addresses(*where), len(where))


def test_one_address(serve, handle):
    server, h = serve(listen="tcp"), handle()
    connect(h, tcp(server))
    assert h.read(0, 8) == bytes(8)


def test_unix_address(serve, handle):
    server, h = serve(), handle()
    connect(h, server.path)
    assert h.read(0, 8) == bytes(8)


def test_first_that_answers_is_used_and_alone(serve, handle):
    first, second, h = serve(listen="tcp"), serve(listen="tcp"), handle()
    connect(h, tcp(first), tcp(second))
    assert h.read(0, 8) == bytes(8)
    assert len(first.sessions) == 1 and len(second.sessions) == 0


def quickest(limit, handle, *where):
    """Connect in less than LIMIT seconds, if only the fifth time; how long it took."""
    took = []
    while len(took) < 5:
        h, watch = handle(), Stopwatch()
        connect(h, *where)
        took.append(watch.quiet())
        assert h.read(0, 8) == bytes(8)
        if took[-1] < limit:
            return watch()
    raise AssertionError(took)


def test_refused_addresses_are_passed_over_at_once(serve, handle):
    quickest(0.5, handle, refused(), refused(), refused(), tcp(serve(listen="tcp")))


def test_black_hole_delays_no_more_than_the_stagger(serve, handle):
    """RFC 8305 section 5: the next address after 250 ms."""
    with black_hole() as nowhere:
        assert quickest(0.9, handle, nowhere, tcp(serve(listen="tcp"))) > 0.1


def test_two_black_holes_delay_two_staggers(serve, handle):
    server, h = serve(listen="tcp"), handle()
    with black_hole() as nowhere:
        watch = Stopwatch()
        connect(h, nowhere, nowhere, tcp(server))
        assert watch.quiet() < 1.5


def test_racing_needs_no_caller_s_timer(serve, handle):
    """Driven by poll(2) on fd and direction alone, as an event loop does."""
    server, h = serve(listen="tcp"), handle()
    with black_hole() as nowhere:
        where = addresses(nowhere, tcp(server))
        watch = Stopwatch()
        h.aio_connect_addresses(where, 2)
        while h.aio_is_connecting():
            direction, poll = h.aio_get_direction(), select.poll()
            poll.register(h.aio_get_fd(), (select.POLLIN if direction & 1 else 0) |
                          (select.POLLOUT if direction & 2 else 0))
            assert poll.poll(10_000), "nothing happened for 10 s"
            if direction & 1:
                h.aio_notify_read()
            else:
                h.aio_notify_write()
        assert watch.quiet() < 2
    assert h.read(0, 8) == bytes(8)


def sockets():
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):    # another thread's, for a moment
            found += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return found


def test_losers_of_the_race_leave_no_descriptor(serve, handle):
    server, h = serve(listen="tcp"), handle()
    with black_hole() as nowhere:
        before = sockets()
        connect(h, nowhere, tcp(server))
        server.wait_for(lambda: server.sessions)
        # one for us, one for the server's thread
        wait_until(lambda: sockets() == before + 2)


def test_all_refused_is_one_error_with_the_last_errno(handle):
    e = fails(handle(), "connect_addresses", addresses(refused(), refused()), 2)
    assert e.errno == errno.ECONNREFUSED


def test_no_address_is_einval(handle):
    h = handle()
    assert fails(h, "connect_addresses", addresses(refused()), 0).errno == errno.EINVAL
    assert h.aio_is_created()


@pytest.mark.parametrize("length", [0, 1, 129, 0xFFFFFFFF])
def test_address_of_an_impossible_length_is_einval(handle, length):
    where = addresses(refused())
    where[0].length = length
    assert fails(handle(), "connect_addresses", where, 1).errno == errno.EINVAL


def test_server_that_breaks_the_handshake_is_not_replaced_by_another(serve, handle):
    """The race is over once one has connected."""
    bad, good, h = serve(listen="tcp", greeting=b"x" * 200), serve(listen="tcp"), handle()
    fails(h, "connect_addresses", addresses(tcp(bad), tcp(good)), 2)
    assert good.sessions == []


def test_name_with_a_dead_address_connects_by_the_other(serve, handle, monkeypatch):
    """nbd_connect_tcp races too: localhost has ::1, where nobody listens."""
    server, h = serve(listen="tcp"), handle()
    watch = Stopwatch()
    h.connect_tcp("localhost", str(server.port))
    assert watch.quiet() < 1


# Vectored reads and writes ----------------------------------------------------------------

def cut(block, lengths):
    """iovecs over BLOCK of these lengths."""
    parts, at = [], 0
    for length in lengths:
        parts.append((block, at, length))
        at += length
    return iovecs(*parts)


LENGTHS = {
    "one": [4096],
    "two": [1, 4095],
    "with empty ones": [0, 100, 0, 0, 3996, 0],
    "thousands": [n % 7 for n in range(5000)],
    "thousands of single bytes": [1] * 3000,
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("segment", [None, 1000])
@pytest.mark.parametrize("structured", [False, True])
def test_vectors_of_any_count_are_written_and_read(connected, structured, lengths, segment):
    server, h = connected(structured=structured, segment=segment)
    total = sum(lengths)
    out, back = buffer(os.urandom(total)), buffer(b"\xff" * total)
    vectors = cut(out, lengths)
    assert h.pwritev(vectors, len(vectors), 512, 0) == 0
    vectors = cut(back, lengths)
    assert h.preadv(vectors, len(vectors), 512, 0) == 0
    assert back.raw[:total] == out.raw[:total]
    assert [(r.type, r.length) for r in server.requests()] == [
        (Cmd.WRITE, total), (Cmd.READ, total)]


def test_large_vectors(connected):
    _, h = connected(exports=Export(1 << 30))
    lengths = [64 << 10] * 1024
    out, back = buffer(os.urandom(1 << 20) * 64), buffer(64 << 20)
    vectors = cut(out, lengths)
    h.pwritev(vectors, len(vectors), 0, 0)
    vectors = cut(back, list(reversed(lengths)))
    h.preadv(vectors, len(vectors), 0, 0)
    assert back.raw == out.raw


def test_vectors_of_many_commands_in_flight(connected):
    server, h = connected(exports=Export(1 << 24), command={
        Cmd.READ: pieces.gathered(20)})
    h.write(0, bytes(n // 4000 for n in range(80_000)))
    blocks = [buffer(4000) for _ in range(20)]
    done = [completion(lambda error: 1) for _ in blocks]
    for i, (block, cb) in enumerate(zip(blocks, done)):
        vectors = cut(block, [1, 2, 997, 0, 3000])
        assert h.aio_preadv(vectors, len(vectors), i * 4000, cb, 0) > 0
    h.poll_until(lambda: h.aio_in_flight() == 0)
    assert [b.raw for b in blocks] == [bytes([i]) * 4000 for i in range(20)]
    assert all(cb.calls == [0] and cb.sound for cb in done)


def test_aio_write_of_vectors(ready):
    server, h = ready
    cb, block = completion(lambda error: 1), buffer(bytes(range(250)))
    vectors = cut(block, [100, 150])
    h.aio_pwritev(vectors, 2, 1000, cb, 1)
    h.poll_until(lambda: cb.calls)
    assert server.requests()[0].flags & 1 and cb.sound
    assert h.read(1000, 250) == bytes(range(250))


@pytest.mark.parametrize("segment", [None, 1])
def test_chunks_fall_into_vectors_wherever_they_are_cut(connected, segment):
    def chunked(session, request):
        o = request.offset
        return session.reply(request, [
            (Chunk.OFFSET_DATA, p.offset_data(o + 700, b"c" * 324)),
            (Chunk.OFFSET_HOLE, p.offset_hole(o + 300, 400)),
            (Chunk.OFFSET_DATA, p.offset_data(o, b"a" * 300))])
    _, h = connected(command={Cmd.READ: chunked}, segment=segment)
    block = buffer(b"\xff" * 1024)
    vectors = cut(block, [1, 298, 2, 398, 3, 0, 322])
    h.preadv(vectors, len(vectors), 0, 0)
    assert block.raw == b"a" * 300 + bytes(400) + b"c" * 324


def test_failed_read_leaves_zeroes_in_every_vector(connected):
    _, h = connected(any_command=pieces.command_error(5))
    block = buffer(b"secret" * 100)
    vectors = cut(block, [100, 200, 300])
    with pytest.raises(NbdError) as e:
        h.preadv(vectors, 3, 0, 0)
    assert e.value.errno == errno.EIO
    assert block.raw == bytes(600)


@pytest.mark.parametrize("name", ["preadv", "aio_preadv"])
def test_vectors_of_a_read_that_is_never_sent_are_zeroes(connected, handle, name):
    _, h = connected()
    last = [0] if name == "preadv" else [completion(), 0]
    for h, offset in ((h, 1 << 50), (handle(), 0)):
        block = buffer(b"secret" * 100)
        vectors = cut(block, [100, 0, 200, 300])
        fails(h, name, vectors, 4, offset, *last)
        assert block.raw == bytes(600)


@pytest.mark.parametrize("name", ["preadv", "pwritev"])
@pytest.mark.parametrize("lengths, offset, code", [
    ([], 0, errno.EINVAL), ([0, 0], 0, errno.EINVAL),
    ([512], 1 << 20, None), ([512, 512], (1 << 20) - 512, None),
    ([1 << 63, 1 << 63], 0, None), ([(1 << 64) - 1, 2], 0, None),
    ([(1 << 64) - 512, 1024], 0, None)])
def test_bad_vectors_are_refused_and_nothing_is_sent(connected, name, lengths, offset, code):
    server, h = connected()
    block = buffer(4096)
    vectors = cut(block, lengths) if lengths else iovecs((block, 0, 0))
    codes = (code,) if code else (
        errno.EINVAL if name == "preadv" else errno.ENOSPC, errno.ERANGE)
    cb = completion()
    e = fails(h, name, vectors, len(lengths), offset, 0)
    assert e.errno in codes
    assert fails(h, "aio_" + name, vectors, len(lengths), offset, cb, 0).errno in codes
    assert cb.sound and not cb.calls
    assert server.requests() == []
    assert h.aio_is_ready()


@pytest.mark.parametrize("lengths", [[(64 << 20) + 1], [33 << 20, 33 << 20]])
@pytest.mark.parametrize("name", ["preadv", "pwritev"])
def test_vectors_beyond_64_mib_are_erange(connected, name, lengths):
    server, h = connected({"strict_mode": 0}, exports=Export(1 << 40))
    vectors = cut(buffer(512), lengths)
    assert fails(h, name, vectors, len(lengths), 0, 0).errno == errno.ERANGE
    assert server.requests() == []


@pytest.mark.parametrize("name", ["preadv", "pwritev"])
def test_no_vector_at_all_is_efault(ready, name):
    server, h = ready
    assert fails(h, name, None, 3, 0, 0).errno == errno.EFAULT
    assert server.requests() == []


def test_vectors_may_be_forgotten_once_the_call_returns(connected):
    """The iovec array is the caller's again at once; only the buffers must stay."""
    release = threading.Event()
    _, h = connected(command={Cmd.READ: pieces.released_by(release)})
    block, cb = buffer(b"\xff" * 4096), completion(lambda error: 1)
    vectors = cut(block, [1000] * 4 + [96])
    h.aio_preadv(vectors, 5, 0, cb, 0)
    ctypes.memset(vectors, 0xA5, ctypes.sizeof(vectors))
    release.set()
    h.poll_until(lambda: cb.calls)
    assert cb.calls == [0] and block.raw == bytes(4096)


# Transmission flags -----------------------------------------------------------------------

@pytest.mark.parametrize("flags", [Flag.HAS_FLAGS, Flag.ALL_COMMANDS, 0xFFFF & ~4096])
def test_transmission_flags_are_told_whole(connected, flags):
    _, h = connected(exports=Export(flags=flags))
    assert h.get_transmission_flags() == flags


def test_transmission_flags_are_not_known_before(handle):
    assert fails(handle(), "get_transmission_flags").errno in (errno.EINVAL, errno.ENOTCONN)


# nbdd_dial --------------------------------------------------------------------------------

def dial(*where):
    lib = library()
    fd = lib.dial(addresses(*where), len(where))
    if fd < 0:
        raise lib.error()
    return socket.socket(fileno=fd)


def test_a_dialled_socket_is_all_that_a_handle_needs(serve, handle):
    server, h = serve(listen="tcp"), handle()
    with black_hole() as nowhere, dial(nowhere, tcp(server)) as sock:
        assert sock.gettimeout() is None or os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())
        h.connect_socket(os.dup(sock.fileno()))
    assert h.read(0, 8) == bytes(8)


@pytest.mark.parametrize("n, number", [(0, errno.EINVAL), (1, errno.ECONNREFUSED),
                                       (65, errno.EINVAL)])
def test_dialling_in_vain_is_one_error(n, number):
    with pytest.raises(NbdError) as e:
        dial(*[refused()] * n)
    assert e.value.text.startswith("nbdd_dial: ") and e.value.errno == number


@pytest.mark.slow
def test_dialling_a_unix_socket_whose_backlog_stays_full_ends(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        with pytest.raises(NbdError) as e:
            dial(path)
        assert e.value.errno == errno.ETIMEDOUT


# nbdd_dial_several ------------------------------------------------------------------------

@contextlib.contextmanager
def several(count, *where, late=-1):
    """What becomes of each: a socket, or an error number."""
    lib = library()
    fds = (ctypes.c_int * max(count, 1))()
    n = lib.dial_several(addresses(*where), len(where), fds, count, late)
    if n < 0:
        raise lib.error()
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket(fileno=fd)) if fd >= 0 else -fd for fd in fds]
        assert n == sum(fd >= 0 for fd in fds)
        yield found


def connected_of(found):
    return [s for s in found if isinstance(s, socket.socket)]


@pytest.mark.parametrize("before", [0, 1])
def test_several_connections_at_once(serve, handle, before):
    server = serve(listen="tcp")
    with several(64, *[refused()] * before, tcp(server)) as found:
        assert len(connected_of(found)) == len({s.getsockname() for s in found}) == 64
        assert all(os.get_blocking(s.fileno()) and not os.get_inheritable(s.fileno())
                   for s in found)
        h = handle()
        h.connect_socket(os.dup(found[63].fileno()))
        assert h.read(0, 8) == bytes(8)


@contextlib.contextmanager
def short_backlog():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(3)
        yield listener


def test_who_is_late_holds_the_others_up_no_longer():
    watch = Stopwatch()
    with short_backlog() as listener, \
            several(10, listener.getsockname(), late=200) as found:
        there = connected_of(found)
        assert 2 <= len(there) < 10 and watch() >= 0.2
        assert {f for f in found if f not in there} == {errno.ETIMEDOUT}


@pytest.mark.slow
def test_late_ones_are_waited_for_without_end():
    with short_backlog() as listener:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=serve, daemon=True).start()
        with several(40, listener.getsockname()) as found:
            assert len(connected_of(found)) == 40
        listener.shutdown(socket.SHUT_RDWR)


def test_several_in_vain_say_each_why():
    with several(3, refused()) as found:
        assert found == [errno.ECONNREFUSED] * 3


@pytest.mark.parametrize("count, n", [(0, 1), (65, 1), (1, 0), (1, 65)])
def test_several_are_1_to_64(count, n):
    with pytest.raises(NbdError) as e, several(count, *[refused()] * n):
        pass
    assert e.value.text.startswith("nbdd_dial_several: ") and e.value.errno == errno.EINVAL


# nbdd_uri_parse ---------------------------------------------------------------------------

def parse(text):
    lib = library()
    uri = lib.uri_parse(text.encode())
    if not uri:
        raise lib.error()
    try:
        value = uri.contents
        return {name: getattr(value, name) for name, _ in value._fields_}
    finally:
        lib.uri_free(uri)


@pytest.mark.parametrize("text, fields", [
    ("nbd://host", {"transport": 0, "tls": 0, "host": b"host", "port": b"10809",
                    "export_name": b"", "verify_peer": True}),
    ("nbd://", {"host": b"localhost", "port": b"10809"}),
    ("nbds://[::1]:99/disk%201", {"tls": 1, "host": b"::1", "port": b"99",
                                  "export_name": b"disk 1"}),
    ("nbd+unix:///x?socket=/run/s%20t", {"transport": 1, "tls": 0, "host": None,
                                         "socket_path": b"/run/s t", "export_name": b"x"}),
    ("nbds+vsock://7:8/x", {"transport": 2, "tls": 1, "vsock_cid": 7, "vsock_port": 8}),
    ("nbds://alice@h/?tls-psk-file=/k&tls-certificates=/c&tls-verify-peer=false"
     "&tls-hostname=n&tls-priority=NORMAL",
     {"username": b"alice", "tls_psk_file": b"/k", "tls_certificates": b"/c",
      "verify_peer": False, "tls_hostname": b"n", "tls_priority": b"NORMAL"}),
])
def test_uri_is_parsed_without_a_handle(text, fields):
    parsed = parse(text)
    assert {k: parsed[k] for k in fields} == fields


@pytest.mark.parametrize("text", ["", "/path", "http://h", "nbd+unix:///", "nbd:x:1",
                                  "nbd://h:0x1", "nbd+vsock://-1:1"])
def test_bad_uri_is_one_error(text):
    with pytest.raises(NbdError) as e:
        parse(text)
    assert e.value.text.startswith("nbdd_uri_parse: ") and e.value.errno == errno.EINVAL


def test_freeing_no_uri_does_nothing():
    library().uri_free(None)
