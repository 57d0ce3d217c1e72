"""How long an outage may last, and what must not be resumed."""
import signal
import time
from collections import Counter

import pytest

from tests.harness.daemon import Daemon
from tests.harness.script import Scripted
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
LONG = 90


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


@pytest.fixture(scope='module', autouse=True)
def long_outage(guest, daemon):
    """A device whose server has been away since the module began; the other tests run
    meanwhile."""
    with file_server(guest, 'long') as server:
        device = daemon.attach(server.uri, name='long')
        writer = Workload(guest, device, size='8M', direct=True).start()
        server.kill()
        yield time.monotonic(), server, writer
        daemon.detach('long', '--force', check=False)


def one_look(daemon):
    """Seconds that a start of nbdctl takes, which on a busy machine is no trifle."""
    watch = Stopwatch()
    daemon.status()
    return watch()


def direct_read(guest, device, **how):
    return guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'],
                     check=False, **how)


def test_with_a_dead_timeout_io_fails_after_it_and_the_device_revives(guest, daemon):
    with file_server(guest, 'dead') as server:
        device = daemon.attach(server.uri, name='dead', dead_timeout='5s')
        watch = Stopwatch()
        server.kill()
        daemon.wait_state('dead', 'reconnecting')
        r = direct_read(guest, device, timeout=30)
        assert r.rc != 0 and 'Input/output error' in r.out
        assert 4 <= watch() and watch.quiet() <= 8
        s = daemon.wait_state('dead', 'failing')
        assert s['retry']['attempts'] > 0 and s['retry']['last_error']
        watch = Stopwatch()
        assert direct_read(guest, device).rc != 0, 'an error was due'
        assert watch.quiet() < 1, 'after the limit I/O fails at once'
        server.start()
        daemon.wait_state('dead', 'connected')
        assert direct_read(guest, device).rc == 0
        daemon.detach('dead')


@pytest.mark.parametrize('change, reason', [
    (dict(truncate='32M'), '32'),
    (dict(truncate='160M'), '160'),
    (dict(options=['-r']), 'read-only'),
], ids=['smaller', 'larger', 'read-only'])
def test_another_export_is_not_resumed_until_the_right_one_is_back(guest, daemon, change, reason):
    with file_server(guest, 'wrong', megabytes=64) as server:
        device = daemon.attach(server.uri, name='wrong')
        writer = Workload(guest, device, size='8M', direct=True).start()
        server.kill()
        size = change.get('truncate')
        if size:
            guest.run(['truncate', '-s', size, '/tmp/wrong'])
        server.options = change.get('options', [])
        server.start()
        s = daemon.wait_state('wrong', 'refused')
        assert reason in s['retry']['last_error']
        assert s['retry']['last_error'] in daemon.log()
        writer.wait_stuck()
        before = writer.ops()
        # Nothing may reach the wrong export; it is asked again all the time.
        wait_until(lambda: daemon.status('wrong')['retry']['attempts'] >= 2, 20)
        assert daemon.state('wrong') == 'refused' and writer.ops() == before
        assert guest.block(device[8:], 'size') == str(64 << 11)
        server.kill()
        guest.run(['truncate', '-s', '64M', '/tmp/wrong'])
        server.options = []
        server.start()
        daemon.wait_state('wrong', 'connected', timeout=20)
        writer.wait_flowing(20)
        # What a shorter file has lost is gone; the writer would say so.
        writer.finish(good=size != '32M')
        daemon.detach('wrong')


def test_a_server_without_the_export_is_not_resumed(guest, daemon):
    with Scripted(guest, export='x') as server:
        device = daemon.attach(server.uri, name='missing')
        server.kill()
        server.switch('missing')
        server.start()
        wait_until(lambda: 'no such export' in daemon.status('missing')['retry']['last_error'])
        p = guest.spawn(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'])
        server.switch('lasting')
        assert p.wait(30) == 0
        s = daemon.wait_state('missing', 'connected')
        assert s['retry']['last_error'] == ''
        daemon.detach('missing')


def test_with_size_change_grow_a_larger_export_grows_the_device(guest, daemon):
    with file_server(guest, 'grow', megabytes=64) as server:
        device = daemon.attach(server.uri, name='grow', size_change='grow')
        writer = Workload(guest, device, size='8M', direct=True).start()
        server.kill()
        guest.run(['truncate', '-s', '96M', '/tmp/grow'])
        server.start()
        wait_until(lambda: guest.block(device[8:], 'size') == str(96 << 11), 10,
                   'the device to grow')
        # The kernel has it first.
        wait_until(lambda: daemon.status('grow')['size'] == 96 << 20, 10)
        daemon.wait_state('grow', 'connected')
        writer.wait_flowing(20)
        writer.finish()
        daemon.detach('grow')


def test_a_device_grows_only_without_requests_in_flight(guest, daemon):
    """Kernels of today wait for them under a lock that every nbd device needs."""
    # With threads: what nbdd reads before it grows must not wait behind the write.
    with file_server(guest, 'busy', megabytes=64,
                     options=['--filter=delay', '--threads=4']) as server:
        server.plugin += ['wdelay=15']
        server.restart()
        device = daemon.attach(server.uri, name='busy', size_change='grow')
        writer = guest.spawn(['dd', 'if=/dev/zero', f'of={device}', 'bs=4k', 'count=1',
                              'oflag=direct'])
        wait_until(lambda: guest.block(device[8:], 'inflight').split() == ['0', '1'])
        server.kill()
        guest.run(['truncate', '-s', '96M', '/tmp/busy'])
        server.start()
        wait_until(lambda: 'busy: it grows as soon as' in daemon.log(), 20)
        assert writer.rc is None and guest.block(device[8:], 'size') == str(64 << 11)
        assert writer.wait(60) == 0
        wait_until(lambda: guest.block(device[8:], 'size') == str(96 << 11), 20)
        wait_until(lambda: daemon.status('busy')['size'] == 96 << 20, 20)
        daemon.detach('busy')


def test_detach_refuses_a_device_in_use_and_says_who_holds_it(guest, daemon):
    with file_server(guest, 'held') as server:
        device = daemon.attach(server.uri, name='held')
        p = guest.spawn(['sh', '-c', f'exec 3<{device}; exec sleep 1000'])
        wait_until(lambda: guest.read(f'/proc/{p.pid}/comm') == 'sleep\n')
        r = daemon.detach('held', check=False)
        assert r.rc != 0 and 'sleep' in r.out and str(p.pid) in r.out
        p.kill()
        p.wait()
        guest.sh(f'mkfs.ext4 -q -F {device}; mkdir -p /mnt/held; mount {device} /mnt/held')
        r = daemon.detach('held', check=False)
        assert r.rc != 0 and '/mnt/held' in r.out
        guest.run(['umount', '/mnt/held'])
        daemon.detach('held')
        assert guest.block(device[8:], 'size') == '0'


def quickest_detach(daemon, server, name, prepare, *options):
    """Seconds, the best of six: other tests load the machine.  PREPARE gets the device of
    a server that works, and what it returns is yielded after the detach."""
    took = []
    while len(took) < 6 and (not took or took[-1] >= 1):
        if server.process.rc is not None:
            server.start()
        left = prepare(daemon.attach(server.uri, name=name))
        watch = Stopwatch()
        r = daemon.detach(name, *options)
        took.append(watch.quiet())
        yield left
    assert min(took) < 1, (took, r.out)


def test_detach_while_the_server_is_away_takes_less_than_a_second(guest, daemon):
    stuck_before = Counter(guest.in_d_state())
    with file_server(guest, 'away') as server:
        def prepare(device):
            writer = Workload(guest, device, size='8M', direct=True).start()
            server.kill()
            writer.wait_stuck()
            return writer
        for writer in quickest_detach(daemon, server, 'away', prepare, '--force'):
            # The writer's requests fail; once they have, nobody hangs.
            wait_until(lambda: writer.progress()['errors'] > 0)
            writer.process.kill(signal.SIGKILL, group=True)
            writer.process.wait()
            wait_until(lambda: not Counter(guest.in_d_state()) - stuck_before, 5,
                       'D states to end')
            assert not any(s['name'] == 'away' for s in daemon.status())


def test_an_idle_device_detaches_at_once_while_its_server_is_away(guest, daemon):
    with file_server(guest, 'idle') as server:
        def prepare(device):
            server.kill()
            daemon.wait_state('idle', 'reconnecting')
            return device
        for device in quickest_detach(daemon, server, 'idle', prepare):
            assert not guest.exists(f'/sys/block/{device[5:]}/pid')


def test_a_server_that_is_away_for_90_seconds_costs_nothing_but_time(guest, daemon, long_outage):
    began, server, writer = long_outage
    # This wait is what is tested: nothing may give up in the meantime.
    wait_until(lambda: time.monotonic() - began > LONG, LONG + 10, '90 s to pass')
    p = writer.progress()
    assert p['oldest_ms'] > (LONG - 5) * 1000 and p['errors'] == 0
    s = daemon.status('long')
    assert s['state'] == 'reconnecting' and s['retry']['attempts'] > 10
    server.start()
    watch = Stopwatch()
    writer.wait_flowing(10)
    print('resumed after', round(watch(), 2))
    s = daemon.wait_state('long', 'connected')
    assert s['outages']['count'] == 1
    assert s['outages']['last']['duration_usec'] > (LONG - 5) * 1e6
    writer.finish()
