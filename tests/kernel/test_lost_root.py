"""nbdd goes on when the device is away that it is on itself: its binary and libraries, its root."""
import os

import pytest

from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import ONE_THREAD
from tests.kernel.lost_root import AT, BINARY, DATA_MB, EXPORTS, LostRoot, libraries, make_exports

pytestmark = pytest.mark.guest
ATTEMPTS = 100
FORKS = 230             # of two devices: each has an attempt in about half of them
FREE_MB, DIRTY_MB = 64, 8
FILESYSTEMS = [AT, EXPORTS, '/', '/dev', '/proc', '/run', '/sys', '/tmp']


@pytest.fixture(scope='module')
def guest(boot):
    g = boot(memory='288M')
    make_exports(g)
    return g


def numbers(guest, file):
    """The first number of each line of /proc/FILE, by the line's first word."""
    lines = (line.replace(':', ' ').split() for line in guest.read(f'/proc/{file}').splitlines())
    return {line[0]: int(line[1]) for line in lines if line[1:2] and line[1].isdigit()}


def drop_caches(guest):
    guest.write('/proc/sys/vm/drop_caches', '3')


def take_memory(guest):
    """Leave FREE_MB that can be had, and nowhere to swap to."""
    drop_caches(guest)
    memory = numbers(guest, 'meminfo')
    much = memory['MemAvailable'] - (FREE_MB << 10)
    assert much > 0 and memory['SwapTotal'] == 0
    guest.run(['fallocate', '-l', f'{much}K', f'{EXPORTS}/ballast'])


def reclaimed(guest):
    """Pages that the kernel has taken back because it was short of them."""
    n = numbers(guest, 'vmstat')
    return n['pgsteal_kswapd'] + n['pgsteal_direct']


class Watch:
    """What nbdd and its children do from now on; nothing is asked of it meanwhile."""

    def __init__(self, m):
        self.m, self.guest = m, m.guest
        self.attempts, self.reclaimed = m.attempts(), reclaimed(m.guest)
        self.guest.python('tests.kernel.opens:opened')          # to forget them
        self.mappings = m.mapped()
        self.faults, self.forks = m.faults(), self.processes()

    def processes(self):
        return numbers(self.guest, 'stat')['processes']

    def end(self, others):
        """After FORKS; OTHERS are processes of the test that may have opened files.

        That all pages were there, and to stay, and still are, at the same places, leaves one
        kind of minor fault: the write to a page that a fork has made one of two processes.
        """
        wait_until(lambda: self.processes() - self.forks >= FORKS, 120, 'forks', 0.5)
        faults = [now - then for now, then in zip(self.m.faults(), self.faults)]
        opened = self.guest.python('tests.kernel.opens:opened')
        memory = numbers(self.guest, 'meminfo')
        assert (self.m.mapped(), self.m.not_held()) == (self.mappings, [])
        attempts = self.m.attempts() - self.attempts
        print(f'{attempts} attempts; minor, major faults of nbdd, of its children: {faults}; '
              f'KiB free {memory["MemFree"]}, to be written {memory["Dirty"]} + '
              f'{memory["Writeback"]}; {reclaimed(self.guest) - self.reclaimed} pages reclaimed')
        assert attempts >= ATTEMPTS and (faults[1], faults[3]) == (0, 0)
        assert opened and [o for o in opened if o[0] not in [1, *(p.pid for p in others)]] == []
        assert memory['Dirty'] + memory['Writeback'] > DIRTY_MB << 10
        assert reclaimed(self.guest) > self.reclaimed


def wait_both(m, state):
    for name in ('root', 'data'):
        m.daemon.wait_state(name, state, 30)


def lose_it(guest, m, server, pattern):
    """100 attempts; then it comes back, and everybody goes on who has waited."""
    dirtier = guest.spawn(['sh', '-ec', f'exec >{m.devices[1]}; read word </tmp/go; '
                           f'exec cat {pattern}'])
    drop_caches(guest)
    assert m.cached('/bin/busybox') == [0] and all(m.cached(BINARY, *libraries()))
    server.kill()
    wait_both(m, 'reconnecting')
    guest.write('/tmp/go', 'on\n')
    program = guest.spawn(['chroot', AT, '/bin/busybox', 'echo', 'was', 'read'])
    drop_caches(guest)
    watch = Watch(m)
    churn = guest.spawn(['cat', pattern, pattern])
    watch.end([dirtier, program, churn])
    assert (churn.rc, program.rc, dirtier.rc) == (0, None, None), 'two wait for the device'
    server.start()
    wait_both(m, 'connected')
    assert (program.wait(30), program.output) == (0, 'was read\n')
    assert dirtier.wait(30) == 0


def lose_nbdd_too(m, server):
    """Killed now, it can only be started from elsewhere."""
    server.kill()
    wait_both(m, 'reconnecting')
    m.daemon.crash()
    m.daemon.start()
    server.start()
    wait_both(m, 'connected')


def test_nbdd_reconnects_the_root_that_it_is_on(guest):
    pattern = guest.path / 'pattern'
    pattern.write_bytes(os.urandom(DATA_MB << 20))
    guest.run(['mkfifo', '/tmp/go'])
    with Nbdkit(guest, ['file', f'dir={EXPORTS}'], tcp=True, options=ONE_THREAD) as server:
        m = LostRoot(guest, server, reconnect_delay='10ms', reconnect_delay_max='10ms')
        assert (m.elsewhere(), m.not_held()) == ([], [])
        writer = Workload(guest, f'{AT}/root/file', size='16M').start()
        guest.python('tests.kernel.opens:watch', filesystems=FILESYSTEMS)
        take_memory(guest)
        faults = m.faults()
        assert [m.attempts() for _ in range(20)] == [0] * 20
        assert m.faults() == faults, 'none without a fork'
        lose_it(guest, m, server, pattern)
        lose_nbdd_too(m, server)
        writer.wait_flowing(30)
        writer.finish()
        m.end()
    guest.run(['cmp', pattern, f'{EXPORTS}/data'])
