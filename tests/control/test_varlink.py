"""The framing, limits and order of the control protocol, against a small real server."""
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest

from tests.control.varlink import Varlink
from tests.harness.paths import BUILD, ROOT
from tests.harness.wait import Stopwatch, wait_until

MIB = 1 << 20
INVALID = 'org.varlink.service.InvalidParameter'
SANITIZED = BUILD.name != 'build'


@pytest.fixture
def server(host):
    """varlink-test; `path` is its socket.  It has to end well, and to leak nothing."""
    class Server:
        path = host.path / 'control'
        process = host.spawn([BUILD / 'tests' / 'varlink-test', path])

        def connect(self, **how):
            return Varlink(self.path, **how)

        def state(self):
            with self.connect() as c:
                return c.call('io.nbdd.Test.State')['parameters']

        def memory(self):
            """Resident KiB."""
            return int(host.proc_status(self.process.pid)['VmRSS'])

        def cpu(self):
            fields = host.read(f'/proc/{self.process.pid}/stat').rsplit(')')[1].split()
            return int(fields[11]) + int(fields[12])
    s = Server()
    wait_until(lambda: host.listening(unix=s.path))
    os.chmod(host.path, 0o755)
    yield s
    assert s.process.rc is None, f'the server has ended: {s.process.output}'
    s.process.kill(signal.SIGTERM)
    assert s.process.wait() == 0, s.process.output


def echo(text='hello'):
    return 'io.nbdd.Test.Echo', {'text': text}


def test_a_call_is_answered_with_its_parameters(server):
    with server.connect() as c:
        assert c.call(*echo()) == {'parameters': {'text': 'hello'}}
        assert c.call('io.nbdd.Test.Echo') == {'parameters': {}}
        assert c.call('io.nbdd.Test.Echo', None, more=True) == {'parameters': {}}


def test_the_service_describes_itself(server):
    with server.connect() as c:
        info = c.call('org.varlink.service.GetInfo')['parameters']
        assert info['interfaces'] == ['org.varlink.service', 'io.nbdd.Test']
        assert set(info) == {'vendor', 'product', 'version', 'url', 'interfaces'}
        for name in info['interfaces']:
            reply = c.call('org.varlink.service.GetInterfaceDescription', {'interface': name})
            assert f'interface {name}\n' in reply['parameters']['description']


@pytest.mark.parametrize('method, error, parameters', [
    ('io.nbdd.Test.No', 'MethodNotFound', {'method': 'io.nbdd.Test.No'}),
    ('io.nbdd.No.Echo', 'InterfaceNotFound', {'interface': 'io.nbdd.No'}),
    ('io.nbdd.Test', 'InterfaceNotFound', {'interface': 'io.nbdd'}),
    ('.Echo', 'InterfaceNotFound', {'interface': ''}),
    ('org.varlink.service.No', 'MethodNotFound', {'method': 'org.varlink.service.No'}),
])
def test_an_unknown_name_gets_the_standards_error(server, method, error, parameters):
    with server.connect() as c:
        assert c.call(method) == {'error': f'org.varlink.service.{error}',
                                  'parameters': parameters}
        assert c.call(*echo())['parameters']


def test_parameters_of_a_wrong_type_are_named(server):
    with server.connect() as c:
        for parameters, bad in (({}, 'name'), ({'name': 1}, 'name'), ({'name': None}, 'name'),
                                ({'name': 'a', 'other': []}, 'other'),
                                ({'name': 'a', 'flag': 'yes'}, 'flag')):
            reply = c.call('io.nbdd.Test.Typed', parameters)
            assert reply['error'] == INVALID and reply['parameters']['parameter'] == bad
        assert c.call('io.nbdd.Test.Typed', {'name': 'a', 'other': None, 'flag': True}) == \
            {'parameters': {'name': 'a', 'other': 'default', 'flag': 1}}


def test_a_message_may_come_byte_by_byte(server):
    with server.connect() as c:
        for byte in b'{"method":"io.nbdd.Test.Echo","parameters":{"a":1}}\0':
            c.raw(bytes([byte]))
        assert c.receive() == {'parameters': {'a': 1}}


def test_pipelined_calls_are_answered_in_order(server):
    with server.connect() as c:
        call = '{"method":"io.nbdd.Test.Echo","parameters":{"n":%d}}\0'
        c.raw(''.join(call % n for n in range(1000)).encode())
        assert [c.receive()['parameters']['n'] for _ in range(1000)] == list(range(1000))


def test_a_pipelined_call_waits_for_the_one_before(server):
    with server.connect() as c, server.connect() as other:
        c.send('io.nbdd.Test.Hold')
        c.send(*echo('after'))
        wait_until(lambda: server.state()['held'])
        c.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            c.receive()
        c.sock.settimeout(10)
        assert other.call('io.nbdd.Test.Release') == {'parameters': {'held': 1}}
        assert c.receive() == {'parameters': {'released': 1}}
        assert c.receive() == {'parameters': {'text': 'after'}}


def test_oneway_is_carried_out_and_not_answered(server):
    with server.connect() as holder, server.connect() as c:
        holder.send('io.nbdd.Test.Hold')
        wait_until(lambda: server.state()['held'])
        c.send('io.nbdd.Test.Release', oneway=True)
        c.send('io.nbdd.Test.No', oneway=True)
        c.send(*echo())
        assert c.receive() == {'parameters': {'text': 'hello'}}
        assert holder.receive() == {'parameters': {'released': 1}}


def test_oneway_is_carried_out_for_a_client_that_leaves_at_once(server):
    with server.connect() as holder:
        holder.send('io.nbdd.Test.Hold')
        wait_until(lambda: server.state()['held'])
        with server.connect() as c:
            c.send('io.nbdd.Test.Release', oneway=True)
        assert holder.receive() == {'parameters': {'released': 1}}


def test_a_client_that_only_ends_its_sending_gets_its_replies(server):
    with server.connect() as c:
        c.send(*echo('one'))
        c.send(*echo('two'))
        c.sock.shutdown(socket.SHUT_WR)
        assert [c.receive()['parameters']['text'] for _ in range(2)] == ['one', 'two']
        assert c.receive() is None


def test_more_gives_replies_that_continue_until_the_last(server):
    with server.connect() as c:
        c.send('io.nbdd.Test.Watch', more=True)
        ticks = []
        for _ in range(5):
            reply = c.receive()
            assert reply['continues'] is True
            ticks.append(reply['parameters']['tick'])
        assert ticks == sorted(set(ticks))
        with server.connect() as other:
            other.call('io.nbdd.Test.StopWatch')
        while 'continues' in (reply := c.receive()):
            pass
        assert reply['parameters']['tick'] >= ticks[-1]
        assert c.call(*echo())['parameters']


def test_a_method_that_needs_more_says_so(server):
    with server.connect() as c:
        assert c.call('io.nbdd.Test.Watch')['error'] == 'org.varlink.service.ExpectedMore'


def test_the_handler_learns_that_its_client_has_left(server):
    for method, flags in (('Hold', {}), ('Watch', {'more': True})):
        before = server.state()['gone']
        with server.connect() as c:
            c.send(f'io.nbdd.Test.{method}', **flags)
            if method == 'Watch':
                c.receive()
            else:
                wait_until(lambda: server.state()['held'])
        wait_until(lambda: server.state()['gone'] == before + 1)


def test_a_late_answer_to_a_client_that_left_is_dropped_and_costs_nothing(server):
    with server.connect() as c:
        c.send('io.nbdd.Test.HoldBlindly')
        wait_until(lambda: server.state()['held'])
    before = server.cpu()
    watch = Stopwatch()
    wait_until(lambda: watch() > 0.5)
    # A hang-up cannot be masked: a loop that turned round and round shows here.
    assert server.cpu() - before <= 5
    with server.connect() as other:
        assert other.call('io.nbdd.Test.Release') == {'parameters': {'held': 1}}
        assert other.call(*echo())['parameters']


def test_a_dropped_call_closes_its_connection(server):
    with server.connect() as c:
        c.send('io.nbdd.Test.Drop')
        assert c.receive() is None


def test_a_call_of_one_mebibyte_is_taken(server):
    frame = len('{"method": "io.nbdd.Test.Echo", "parameters": {"text": ""}}')
    with server.connect() as c:
        reply = c.call(*echo('x' * (MIB - frame)))
        assert len(reply['parameters']['text']) == MIB - frame


@pytest.mark.parametrize('sent', [MIB + 1, 8 * MIB])
def test_a_longer_call_gets_one_clear_error(server, sent):
    with server.connect() as c:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            c.raw(b'{"method":"' + b'x' * (sent - 11))
        reply = c.receive()
        assert reply['error'] == INVALID and '1 MiB' in reply['parameters']['message']
        assert c.receive() is None
    assert server.process.output.count('1 MiB') == 1


DEEP = b'{"method":"io.nbdd.Test.Echo","parameters":{"a":' + b'[' * 100 + b']' * 100 + b'}}'
WIDE = b'{"method":"io.nbdd.Test.Echo","parameters":{"a":[' + b'[],' * 300000 + b'[]]}}'
LONG = b'{"method":"io.nbdd.Test.Echo","parameters":{"a":[' + b'1,' * 500000 + b'1]}}'


@pytest.mark.parametrize('message, why', [
    (b'', 'not'), (b'hello', 'not JSON'), (b'\xff\xfe\xfd', 'not UTF-8'),
    (b'[]', 'not a JSON object'), (b'"text"', 'not a JSON object'), (b'null', 'not'),
    (b'{"method":"a.b"', 'not a complete JSON object'),
    (b'{"method":"a.b"} x', 'not JSON'), (b'{"method":"a.b"}{}', 'not JSON'),
    (b"{'method':'a.b'}", 'not JSON'),
    (b'{"method":"\xc3\x28.b"}', 'not UTF-8'), (b'{"method":"\xed\xa0\x80.b"}', 'not UTF-8'),
    (b'{"method":"io.nbdd.Test.Echo\\u0000x"}', 'NUL'),
    (b'{}', '`method` must be a string'), (b'{"method":1}', '`method` must be a string'),
    (b'{"method":null}', '`method` must be a string'),
    (b'{"method":"a.b","parameters":[]}', '`parameters` must be an object'),
    (b'{"method":"a.b","more":1}', 'must be booleans'),
    (b'{"method":"a.b","more":true,"oneway":true}', 'must be booleans'),
    (b'{"method":"a.b","upgrade":true}', 'not for this service'),
    (DEEP, 'nested too deep'), (WIDE, 'too many elements'), (LONG, 'too many elements'),
], ids=lambda v: repr(v[:40]) if isinstance(v, bytes) else '')
def test_what_is_no_call_gets_one_clear_error_and_one_line_of_log(server, message, why):
    with server.connect() as c:
        c.raw(message + b'\0' + b'more garbage\0')
        reply = c.receive()
        assert reply['error'] == INVALID
        assert why in reply['parameters']['message']
        assert c.receive() is None
    assert len(server.process.output.splitlines()) == 1
    assert f'pid {os.getpid()}' in server.process.output
    with server.connect() as c:
        assert c.call(*echo())['parameters']


def test_a_method_without_an_interface_is_an_error_reply(server):
    with server.connect() as c:
        assert c.call('Echo')['error'] == INVALID
        assert c.call(*echo())['parameters']


def test_garbage_in_a_loop_does_not_fill_the_log(server):
    for _ in range(200):
        with server.connect() as c:
            c.raw(b'garbage\0')
            assert c.receive()['error'] == INVALID
    assert len(server.process.output.splitlines()) <= 22     # two minutes' worth at most


def test_a_descriptor_is_not_taken(server):
    with server.connect() as c:
        try:
            socket.send_fds(c.sock, [b' '], [0])
        except PermissionError:         # Linux 6.16 lets none in
            assert c.call(*echo())['parameters']
        else:
            assert 'descriptor' in c.receive()['parameters']['message']
            assert c.receive() is None


def test_a_client_that_leaves_in_the_middle_harms_nobody(server):
    for part in (b'{', b'{"method":"io.nbdd.Test.Echo"', b'x' * 500000):
        with server.connect() as c:
            c.raw(part)
    with server.connect() as c:
        assert c.call(*echo())['parameters']


def test_text_that_is_not_utf8_is_made_so(server):
    with server.connect() as c:
        assert c.call('io.nbdd.Test.OddText') == \
            {'parameters': {'text': 'a??(\x1b[31mé'}}


def test_the_257th_client_is_told_why_it_is_refused(server):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(300)]
        for c in clients[:256]:
            assert c.call(*echo())['parameters']
        for c in clients[256:]:
            reply = c.receive()
            assert reply['error'] == 'io.nbdd.Test.Busy'
            assert '256 clients' in reply['parameters']['message']
            assert c.receive() is None
        clients[0].close()
        wait_until(lambda: 'held' in server.state())


AS_NOBODY = '''
import os, sys
sys.path.insert(0, {root!r})
from tests.control.varlink import Varlink   # while we may still read the tree
os.setgid(65534); os.setuid(65534)
{code}
'''


def as_nobody(code, **how):
    """Python CODE as a process of nobody, who can say `Varlink(PATH)`."""
    return subprocess.Popen([sys.executable, '-c', AS_NOBODY.format(root=str(ROOT), code=code)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **how)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason='needs root to become nobody')


@needs_root
def test_who_is_not_root_may_not_call_what_is_for_root(server):
    with server.connect() as c:
        assert c.call('io.nbdd.Test.RootOnly') == {'parameters': {'uid': 0}}
    with as_nobody(f'''
import json
with Varlink({str(server.path)!r}) as c:
    print(json.dumps([c.call('io.nbdd.Test.RootOnly'), c.call('io.nbdd.Test.Echo')]))
''') as p:
        assert json.loads(p.stdout.read()) == \
            [{'error': 'org.varlink.service.PermissionDenied', 'parameters': {}},
             {'parameters': {}}]


@needs_root
def test_who_is_not_root_cannot_shut_root_out(server):
    with as_nobody(f'''
cs = [Varlink({str(server.path)!r}) for _ in range(300)]
served = 0
for c in cs:
    try:
        served += 'error' not in (c.call('io.nbdd.Test.Echo') or {{'error': 1}})
    except OSError:
        pass
print(served, flush=True)
sys.stdin.read()
''') as p:
        assert int(p.stdout.readline()) == 256 - 32
        with server.connect() as c:
            assert c.call(*echo())['parameters']
        p.stdin.close()


@needs_root
def test_calls_of_others_come_after_the_servers_work_and_after_root(server):
    """Counted by calls: all of them lie there when the server goes on."""
    state = b'{"method":"io.nbdd.Test.State"}\0'
    with server.connect() as worker, server.connect() as root, as_nobody(f'''
cs = [Varlink({str(server.path)!r}) for _ in range(20)]
print(all(c.call('io.nbdd.Test.Echo') for c in cs), flush=True)
sys.stdin.readline()
for c in cs:
    c.raw(200 * b'{{"method":"io.nbdd.Test.Echo"}}\\0')
print('sent', flush=True)
for c in cs:
    assert all(c.receive() for _ in range(200))
print('read', flush=True)
''') as p:
        assert p.stdout.readline() == 'True\n'
        os.kill(server.process.pid, signal.SIGSTOP)
        print(file=p.stdin, flush=True)
        assert p.stdout.readline() == 'sent\n'
        with server.connect() as late:
            late.raw(state)
            root.raw(100 * state)
            worker.send('io.nbdd.Test.Work')
            os.kill(server.process.pid, signal.SIGCONT)
            # Of some twenty events that are there at once; those at hand may come first.
            begun = late.receive()['parameters']['echoes']
            echoes = [root.receive()['parameters']['echoes'] for _ in range(100)]
            assert worker.receive()['parameters']['most'] <= 1
        assert p.stdout.readline() == 'read\n'
    assert echoes[-1] - echoes[0] <= 1 and echoes[0] <= 21 and begun <= 21
    assert server.state()['echoes'] == 20 * 201


@needs_root
@pytest.mark.skipif(SANITIZED, reason='a sanitizer keeps what was freed')
def test_memory_is_bounded_whatever_all_clients_send(server):
    # Each client sends nearly a mebibyte and does not finish.
    with as_nobody(f'''
cs = [Varlink({str(server.path)!r}) for _ in range(200)]
for c in cs:
    try:
        c.raw(b'{{"method":"' + b'x' * 1000000)
    except OSError:
        pass
print('sent', flush=True)
sys.stdin.read()
''') as p:
        assert p.stdout.readline() == 'sent\n'
        assert server.memory() < 64 * 1024
        with server.connect() as c:
            assert len(c.call(*echo('x' * 900000))['parameters']['text']) == 900000
        p.stdin.close()
    # glibc gives big buffers back at once.
    wait_until(lambda: server.memory() < 24 * 1024)


@needs_root
@pytest.mark.skipif(SANITIZED, reason='a sanitizer keeps what was freed')
def test_replies_that_nobody_reads_are_bounded_and_leave_root_its_part(server):
    with as_nobody(f'''
cs = [Varlink({str(server.path)!r}) for _ in range(200)]
for c in cs:
    c.send('io.nbdd.Test.Later')
print('sent', flush=True)
sys.stdin.readline()
print(sum(c.receive() is not None for c in cs))
''') as p:
        assert p.stdout.readline() == 'sent\n'
        wait_until(lambda: server.state()['later'] == 200)
        with server.connect() as c:
            assert c.call('io.nbdd.Test.All')['parameters'] == {'ended': 200}
        assert server.memory() < 40 * 1024
        with server.connect() as c:
            assert len(c.call(*echo('x' * 900000))['parameters']['text']) == 900000
            assert len(c.call('io.nbdd.Test.Big', {'size': 8 * MIB})['parameters']['text'])
        # Those that found room still get theirs.
        print(file=p.stdin, flush=True)
        assert 20 <= int(p.stdout.readline()) <= 28


@pytest.mark.skipif(SANITIZED, reason='a sanitizer keeps what was freed')
def test_a_slow_reader_holds_up_itself_only(server):
    with server.connect() as slow, server.connect() as other:
        call = b'{"method":"io.nbdd.Test.Big","parameters":{"size":1000000}}\0'
        slow.raw(100 * call)                # 100 MB of replies, if all were made
        assert other.call(*echo())['parameters']
        assert server.memory() < 32 * 1024
        for _ in range(100):
            assert len(slow.receive()['parameters']['text']) == 1000000


@pytest.mark.skipif(SANITIZED, reason='a sanitizer keeps what was freed')
@pytest.mark.slow
def test_a_watcher_that_reads_slowly_gets_the_newest(server):
    with server.connect() as c:
        c.send('io.nbdd.Test.Watch', {'pad': 100000}, more=True)
        wait_until(lambda: server.state()['ticks'] > 100)
        assert server.memory() < 32 * 1024
        before = server.state()['ticks']
        seen = [c.receive()['parameters']['tick'] for _ in range(8)]
        assert seen == sorted(set(seen))
        assert seen[-1] >= before, 'what waits in front of the newest is old'


def test_a_reply_that_is_too_long_cuts_that_client_off(server):
    with server.connect() as c:
        c.send('io.nbdd.Test.Big', {'size': 17 * MIB})
        assert c.receive() is None
    with server.connect() as c:
        assert c.call(*echo())['parameters']


def test_the_server_goes_on_when_it_is_out_of_descriptors(server, host):
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (24, 24))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(40)]
        assert clients[0].call(*echo())['parameters']
        wait_until(lambda: 'accept' in server.process.output)
        before = server.cpu()
        watch = Stopwatch()
        wait_until(lambda: watch() > 0.5)
        assert server.cpu() - before <= 5
        for c in clients[:30]:
            c.close()
        assert clients[-1].call(*echo())['parameters']


@pytest.mark.slow
def test_half_a_message_is_given_30_seconds(server):
    with server.connect(timeout=45) as half, server.connect() as idle:
        half.raw(b'{"method":')
        watch = Stopwatch()
        half.sock.settimeout(1)
        while watch() < 25:                 # a byte now and then wins no time
            with contextlib.suppress(TimeoutError):
                assert half.sock.recv(1), 'closed too early'
            half.raw(b' ')
        half.sock.settimeout(45)
        assert half.receive() is None
        assert 29 < watch() and watch.quiet() < 35
        assert idle.call(*echo())['parameters'], 'an idle client may stay'


@pytest.mark.slow
def test_who_does_not_read_a_reply_is_cut_off_after_30_seconds(server):
    with server.connect() as c:
        c.send('io.nbdd.Test.Big', {'size': 4 * MIB})
        wait_until(lambda: 'does not read' in server.process.output, timeout=40)
