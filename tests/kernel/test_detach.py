"""What a detach takes from nobody: nbdd itself, which sees no other process, has to know."""
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest

HELD = 'io.nbdd.Manager.DeviceHeld'


@pytest.fixture(scope='module')
def daemon(boot):
    with Daemon(boot(modules=('loop', 'dm-mod'))) as d:
        yield d


@pytest.fixture(scope='module')
def guest(daemon):
    return daemon.machine


@pytest.fixture(scope='module')
def server(guest):
    with file_server(guest, 'detached') as s:
        yield s


def detach(daemon, name):
    """What nbdd answers, without nbdctl."""
    return daemon.machine.call(daemon.socket, 'io.nbdd.Manager.Detach', {'device': name})


def opened(guest, device):
    """A process that has it open and does nothing."""
    p = guest.spawn(['sh', '-c', f'exec 3<{device}; exec sleep 1000'])
    wait_until(lambda: 'sleep' in guest.read(f'/proc/{p.pid}/comm'))
    return p


def end(process):
    process.kill(signal.SIGKILL)
    process.wait()


def test_whoever_has_it_keeps_it_and_its_end_ends_nothing(guest, daemon, server):
    device = daemon.attach(server.uri, name='a')
    writer = Workload(guest, device, size='8M', direct=True).start()
    for _ in range(3):
        assert detach(daemon, 'a') == {'error': HELD, 'parameters': {'device': device}}
        assert daemon.state('a') == 'connected'
    writer.wait_flowing(20)
    writer.finish()
    # Nobody has it now, and only a detach ends it.
    assert guest.exists(f'/sys/block/{device[5:]}/pid')
    assert daemon.status('a')['outages']['count'] == 0
    # The next nbdd knows it as well.
    p = opened(guest, device)
    daemon.crash()
    daemon.start()
    assert detach(daemon, 'a')['error'] == HELD
    end(p)
    assert detach(daemon, 'a')['parameters'] == {}
    assert not guest.exists(f'/sys/block/{device[5:]}/pid')


@pytest.mark.parametrize('take, leave', [
    ('mkfs.ext4 -qF {d}; mount {d} /mnt; echo ready; exec sleep 1000', None),
    ('busybox losetup /dev/loop0 {d}', 'busybox losetup -d /dev/loop0'),
    ('dmsetup create --noudevsync t --table "0 2048 linear {d} 0"',
     'dmsetup remove --noudevsync t'),
    ('mkswap {d}; swapon {d}', 'swapoff {d}'),
], ids=['mount', 'loop', 'dm', 'swap'])
def test_every_kind_of_holder_is_one(guest, daemon, server, take, leave):
    device = daemon.attach(server.uri, name='a')
    # A mount that nbdd does not see is one, too.
    p = guest.spawn([*([] if leave else ['unshare', '-m']), 'sh', '-c', take.format(d=device)])
    if leave:
        assert p.wait(20) == 0, p.output
    else:
        wait_until(lambda: 'ready' in p.output, 20)
    refused = detach(daemon, 'a')
    assert refused['error'] == HELD
    assert refused['parameters'].get('claimed', False) == ('losetup' not in take)
    assert daemon.state('a') == 'connected'
    if leave:
        guest.sh(leave.format(d=device))
    else:
        end(p)
    wait_until(lambda: 'error' not in detach(daemon, 'a'), 10)
    assert daemon.status() == []


def test_while_the_server_is_away_nobody_loses_it_either(guest, daemon, server):
    device = daemon.attach(server.uri, name='a')
    p = opened(guest, device)
    server.kill()
    daemon.wait_state('a', 'reconnecting')
    assert detach(daemon, 'a')['error'] == HELD
    out = daemon.detach('a', check=False).out
    assert f'opened by sleep (pid {p.pid})' in out
    daemon.wait_state('a', 'reconnecting')
    server.start()
    daemon.wait_state('a', 'connected')
    assert daemon.status('a')['outages']['count'] == 1
    server.kill()
    daemon.wait_state('a', 'reconnecting')
    end(p)
    assert detach(daemon, 'a')['parameters'] == {}
    server.start()


def test_force_takes_it_from_whoever_waits_for_the_answer_to_another_detach(guest, daemon, server):
    device = daemon.attach(server.uri, name='a')
    p = opened(guest, device)
    server.stop()
    asked = guest.spawn(daemon.ctl_argv('detach', 'a'))
    daemon.wait_state('a', 'detaching')
    daemon.detach('a', '--force', check=False)
    server.cont()
    asked.wait(20)
    wait_until(lambda: daemon.status() == [], 20)
    end(p)


def test_what_cannot_be_flushed_stays_unless_it_is_forced(guest, daemon):
    """A program that writes without fsync learns of no error: the detach is who can tell."""
    bad = '/tmp/bad'
    fails = f'if [ -e {bad} ]; then echo EIO it is bad >&2; exit 1; fi;'
    with Nbdkit(guest, ['eval', 'get_size=echo 1M', 'pread=head -c $3 /dev/zero',
                        f'pwrite={fails} cat >/dev/null', f'flush={fails}']) as server:
        device = daemon.attach(server.uri, name='a')
        guest.sh(f'touch {bad}; echo lost >{device}')
        r = daemon.detach('a', check=False)
        assert r.rc == 1
        assert f'{device} is not detached, for it could not be flushed: Input/output' in r.out
        assert daemon.state('a') == 'connected'
        guest.sh(f'rm {bad}; dd if={device} of=/dev/null bs=4k count=1; touch {bad}')
        assert daemon.detach('a', check=False).rc == 1      # the server's cache alone
        daemon.detach('a', '--force')
        assert daemon.status() == []
        guest.sh(f'rm {bad}')
