"""nbdctl hold: a process that is a device, as nbd@.service has it."""
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import NBDCTL
from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until
from tests.front.front import THEIRS

pytestmark = pytest.mark.guest

OK, FAILED, NO_DAEMON, NO_DEVICE, HELD, LOST = 0, 1, 3, 4, 5, 9


class Holder:
    def __init__(self, guest, daemon, name='nbd0', before=()):
        self.process = guest.spawn([*before, NBDCTL, f'--runtime-dir={daemon.runtime_dir}',
                                    'hold', name])
        self.kill, self.wait = self.process.kill, self.process.wait

    @property
    def out(self):
        return self.process.output


@pytest.fixture(scope='module')
def server(guest):
    with Nbdkit(guest) as s:
        yield s


@pytest.fixture
def daemon(guest, server):
    with Daemon(guest, nbdtab=f'nbd0 {server.socket} a\nnbd1 /tmp/nobody.sock a\n') as d:
        yield d


def attached(holder):
    wait_until(lambda: '/dev/nbd0' in holder.out, 10, 'the device')
    return holder


def test_it_attaches_stays_and_detaches_when_told_to_end(guest, daemon):
    h = attached(Holder(guest, daemon))
    assert daemon.state('nbd0') == 'connected'
    h.kill(signal.SIGTERM)
    assert h.wait() == OK
    assert daemon.status() == []


def test_a_device_that_is_attached_already_is_taken_as_it_is(guest, daemon):
    daemon.ctl('attach', 'nbd0')
    h = attached(Holder(guest, daemon))
    h.kill(signal.SIGTERM)
    assert h.wait() == OK and daemon.status() == []


def test_it_ends_well_when_somebody_detaches_and_badly_when_the_device_is_lost(
        guest, daemon, server):
    h = attached(Holder(guest, daemon))
    daemon.detach('nbd0')
    assert h.wait() == OK
    h = attached(Holder(guest, daemon))
    guest.run([THEIRS, '-d', '/dev/nbd0'])
    assert h.wait() == LOST
    assert 'no longer attached' in h.out


def test_a_server_that_is_away_is_tried_until_it_is_back(guest, daemon, server):
    server.kill()
    h = Holder(guest, daemon)
    wait_until(lambda: 'No such file' in h.out, 10)
    server.start()
    attached(h)
    server.kill()
    daemon.wait_state('nbd0', 'reconnecting')
    server.start()
    daemon.wait_state('nbd0', 'connected')
    assert h.process.rc is None
    assert h.out.count('No such file') == 1, 'said more than once'
    h.kill(signal.SIGTERM)
    assert h.wait() == OK


def test_what_cannot_come_right_fails_at_once(guest, daemon):
    assert Holder(guest, daemon, 'nbd7').wait() == NO_DEVICE
    h = Holder(guest, daemon, 'nbd1')
    wait_until(lambda: 'nobody.sock' in h.out)
    h.kill(signal.SIGTERM)
    assert h.wait() == FAILED and daemon.status() == []


def test_it_waits_for_whoever_uses_the_device(guest, daemon):
    h = attached(Holder(guest, daemon))
    guest.run(['mkfs.ext4', '-q', '/dev/nbd0'])
    guest.run(['mount', '/dev/nbd0', '/mnt'])
    h.kill(signal.SIGTERM)
    wait_until(lambda: 'nbd0 is mounted on /mnt' in h.out)
    assert h.process.rc is None and daemon.state('nbd0') == 'connected'
    guest.run(['umount', '/mnt'])
    assert h.wait() == OK
    assert daemon.status() == []


@pytest.mark.parametrize('where', ['/', '/usr'])
def test_what_the_system_runs_from_stays(guest, daemon, where):
    """In a mount namespace of its own, whose / or /usr is then on the device."""
    h = attached(Holder(guest, daemon, before=['unshare', '-m']))
    inside = f'nsenter -t {h.process.pid} -m'
    guest.run(['mkfs.ext4', '-q', '/dev/nbd0'])
    if where == '/':
        guest.sh(f"{inside} busybox sh -ec 'mount /dev/nbd0 /mnt; cd /mnt; mkdir old; "
                 "for i in dev proc run sys; do mkdir $i; mount --bind /$i $i; done; "
                 "pivot_root . old'")
    else:
        guest.sh(f'{inside} mount /dev/nbd0 {where}')
    h.kill(signal.SIGTERM)
    assert h.wait() == OK
    assert daemon.state('nbd0') == 'connected'
    wait_until(lambda: daemon.detach('nbd0', check=False).rc == OK)


@pytest.mark.parametrize('asleep', [False, True])
def test_the_daemon_may_be_restarted_meanwhile(guest, daemon, asleep):
    h = attached(Holder(guest, daemon))
    if asleep:                          # it finds the next one when all is over
        h.kill(signal.SIGSTOP)
    daemon.process.kill(signal.SIGKILL)
    daemon.process.wait()
    daemon.start()
    daemon.wait_state('nbd0', 'connected')
    assert h.process.rc is None
    daemon.detach('nbd0')
    h.kill(signal.SIGCONT)
    assert h.wait() == OK


def test_to_end_it_waits_for_a_daemon_that_is_being_restarted_and_not_for_ever(guest, daemon):
    h = attached(Holder(guest, daemon))
    daemon.process.kill(signal.SIGKILL)
    daemon.process.wait()
    h.kill(signal.SIGTERM)
    assert guest.block(0, 'pid') and h.process.rc is None
    daemon.start()
    assert h.wait() == OK and daemon.status() == []
    h = attached(Holder(guest, daemon))
    daemon.process.kill(signal.SIGKILL)
    daemon.process.wait()
    h.kill(signal.SIGTERM)
    assert h.wait(60) == NO_DAEMON and h.out.count('nbdd is not running') == 1
    daemon.start()
    daemon.detach('nbd0')


def test_systemd_is_told(guest, daemon, server):
    """What it says on NOTIFY_SOCKET, received in the guest."""
    said = guest.python('tests.front.notified:listen', argv=[
        str(NBDCTL), f'--runtime-dir={daemon.runtime_dir}', 'hold', 'nbd0'])
    assert said[0] == 'READY=1'
    assert said[1].startswith('STATUS=/dev/nbd0 is attached to nbd+unix:///a?socket=')
    assert said[-1] == 'STOPPING=1'
