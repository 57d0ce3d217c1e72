"""The scripted server itself: as a process, and by raw bytes."""
import json
import socket
import subprocess
import sys

import pytest

from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_proto import Cmd, Opt, Rep
from tests.harness.paths import ROOT
from tests.harness.script_server import Export, Script, ScriptServer
from tests.harness.scripts import SCRIPTS
from tests.harness.wait import Stopwatch, wait_until


@pytest.fixture
def process():
    """process(arguments...): a script server of its own, and where it listens."""
    started = []

    def start(*arguments):
        popen = subprocess.Popen(
            [sys.executable, '-m', 'tests.harness.script_server', *map(str, arguments)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(popen)
        return popen.stdout.readline().split()[1]
    yield start
    for popen in started:
        popen.kill()
        popen.wait()
        popen.stdout.close()


class Client:
    """Raw bytes to and from a server."""

    def __init__(self, where):
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(10)
        self.sock.connect(where)

    def get(self, n):
        data = self.sock.recv(n, socket.MSG_WAITALL)
        assert len(data) == n
        return data

    def put(self, data):
        self.sock.sendall(data)

    def at_end(self):
        try:
            return self.sock.recv(1) == b''
        except ConnectionResetError:
            return True

    def go(self, name=''):
        """The handshake of the simplest client; the export's (size, flags)."""
        assert self.get(18) == p.newstyle_hello(3)
        self.put(b'\0\0\0\3')
        self.put(p.option_request(Opt.GO, p.go_data(name)))
        info, ack = self.get(32), self.get(20)
        assert ack == p.option_reply(Opt.GO, Rep.ACK)
        return int.from_bytes(info[22:30], 'big'), int.from_bytes(info[30:], 'big')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def test_as_a_process_over_tcp(process):
    port = process('--size', 4096, '--export', 'disk')
    with Client(('127.0.0.1', int(port))) as c:
        assert c.go('disk')[0] == 4096
        c.put(p.request(Cmd.WRITE, 7, 8, 4) + b'data')
        assert c.get(16) == p.simple_reply(7)
        c.put(p.request(Cmd.READ, 8, 6, 8))
        assert c.get(24) == p.simple_reply(8, 0, b'\0\0data\0\0')


def test_connections_go_by_scripts_in_turn(process, tmp_path):
    path = str(tmp_path / 's')
    process('--listen', f'unix:{path}', '--script', 'good', '--script', 'close-at-greeting',
            '--script', 'doubled-size')
    with Client(path) as c:
        assert c.go()[0] == 1 << 20
    with Client(path) as c:
        assert c.at_end()
    for _ in range(2):
        with Client(path) as c:
            assert c.go()[0] == 2 << 20


def test_script_can_be_switched_by_a_file(process, tmp_path):
    path, name = str(tmp_path / 's'), tmp_path / 'script'
    name.write_text('good\n')
    process('--listen', f'unix:{path}', '--script', f'@{name}')
    with Client(path) as c:
        assert not c.go()[1] & 2
    name.write_text('read-only\n')
    with Client(path) as c:
        assert c.go()[1] & 2


def test_log_tells_what_the_client_said(process, tmp_path):
    path, log = str(tmp_path / 's'), tmp_path / 'log'
    process('--listen', f'unix:{path}', '--log', log)
    with Client(path) as c:
        c.go()
        c.put(p.request(Cmd.DISC, 5))
        assert c.at_end()
    wait_until(lambda: log.read_text().endswith('{"event": "end"}\n'))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e['event'] for e in events] == ['connection', 'option', 'request', 'end']
    assert events[2]['type'] == Cmd.DISC and events[2]['cookie'] == 5


def test_unknown_script_is_refused(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'tests.harness.script_server', '--script',
                           'nonsense'], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and 'nonsense' in done.stderr


def test_session_ends_by_its_own_limit():
    watch = Stopwatch()
    with ScriptServer(Script(greeting=pieces.stall, limit_seconds=0.3)) as server, \
            Client(server.path) as c:
        assert c.at_end()
    assert watch.quiet() < 5


def test_endless_reply_ends_by_its_own_limit():
    endless = pieces.endless(lambda s, m: b'x' * 100)
    with ScriptServer(Script(greeting=endless, limit_bytes=1 << 20)) as server, \
            Client(server.path) as c:
        count = 0
        while data := c.sock.recv(1 << 16):
            count += len(data)
    assert 1 << 20 <= count < 2 << 20


def test_closing_the_server_ends_all_sessions():
    server = ScriptServer(Script(greeting=pieces.deaf), Script(greeting=pieces.stall))
    with Client(server.path) as a, Client(server.path) as b:
        server.wait_for(lambda: len(server.sessions) == 2)
        server.close()
        assert a.at_end() and b.at_end()
    assert all(s.ended for s in server.sessions)


def test_pieces_say_what_they_promise():
    usual = p.option_reply(Opt.ABORT, Rep.ACK)
    expected = {
        pieces.half: usual[:10], pieces.first(3): usual[:3], pieces.doubled: usual * 2,
        pieces.dribble: usual, pieces.followed_by(b'more'): usual + b'more',
        pieces.said_then(b'a', pieces.hang_up): b'a', pieces.hang_up: b'',
        pieces.patched(8, '>I', 9): p.option_reply(9, Rep.ACK),
        pieces.option_error(Rep.ERR_POLICY, b'no'):
            p.option_reply(Opt.ABORT, Rep.ERR_POLICY, b'no'),
        pieces.in_turn(b'one', b'two'): b'one',
    }
    for piece, want in expected.items():
        with ScriptServer(Script(option={Opt.ABORT: piece})) as server, \
                Client(server.path) as c:
            c.get(18)
            c.put(b'\0\0\0\3' + p.option_request(Opt.ABORT))
            assert b''.join(c.get(1) for _ in want) == want
            assert c.at_end()
            assert [o.number for o in server.options()] == [Opt.ABORT]


def test_memory_is_shared_by_connections_and_sparse():
    with ScriptServer(Script(exports=Export(1 << 62))) as server:
        for n in range(2):
            with Client(server.path) as c:
                assert c.go()[0] == 1 << 62
                c.put(p.request(Cmd.WRITE if n == 0 else Cmd.READ, 1, 1 << 61, 4) +
                      (b'data' if n == 0 else b''))
                assert c.get(16 + 4 * n)[16:] == (b'data' if n else b'')


def test_every_named_script_serves():
    for row in SCRIPTS.values():
        assert row.make({'': Export()}).piece_for is not None
