"""nbdd goes on when the device is away that it is on itself: its binary and libraries, its root."""
import os
import signal

import pytest

from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import ONE_THREAD
from tests.kernel.lost_root import AT, BINARY, DATA_MB, EXPORTS, LostRoot, libraries, make_exports
from tests.kernel.tls_guest import install, nbds

pytestmark = pytest.mark.guest
ATTEMPTS = 100
FORKS = 260             # of two devices: each has an attempt in about half of them
FEW, HANDSHAKES = 30, 20        # attempts with TLS; handshakes take long here
AT_ONCE = {'reconnect_delay': '10ms', 'reconnect_delay_max': '10ms'}
FREE_MB, DIRTY_MB, CHURN = 64, 8, 4
FILESYSTEMS = ['/', '/dev', '/proc', '/run', '/sys', '/tmp']


@pytest.fixture(scope='module')
def guest(boot):
    return boot(memory='288M')


@pytest.fixture(scope='module')
def certificates(guest):
    at = install(guest)
    make_exports(guest, at / 'pki' / 'client')
    return at


def numbers(guest, file):
    """The first number of each line of /proc/FILE, by the line's first word."""
    lines = (line.replace(':', ' ').split() for line in guest.read(f'/proc/{file}').splitlines())
    return {line[0]: int(line[1]) for line in lines if line[1:2] and line[1].isdigit()}


def drop_caches(guest):
    guest.write('/proc/sys/vm/drop_caches', '3')


def take_memory(guest):
    """Leave FREE_MB that can be had, and nowhere to swap to."""
    guest.unlink(f'{EXPORTS}/ballast')
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
        self.attempts = m.attempts()
        self.guest.python('tests.kernel.opens:opened')          # to forget them
        self.mappings = m.mapped()
        self.faults = m.faults()

    def processes(self):
        return numbers(self.guest, 'stat')['processes']

    def wait(self, forks):
        """Until there have been so many more of them."""
        begin = self.processes()
        wait_until(lambda: self.processes() - begin >= forks, 120, 'forks', 0.5)

    def end(self, others):
        """OTHERS are processes that may have opened files; PID 1 has.

        That all pages were there, and to stay, and still are, at the same places, leaves one
        kind of minor fault: the write to a page that a fork has made one of two processes.
        """
        faults = [now - then for now, then in zip(self.m.faults(), self.faults)]
        opened = self.guest.python('tests.kernel.opens:opened')
        assert (self.m.mapped(), self.m.not_held()) == (self.mappings, [])
        attempts = self.m.attempts() - self.attempts
        print(f'{attempts} attempts; minor, major faults of nbdd, of its children: {faults}')
        assert (faults[1], faults[3]) == (0, 0)
        assert opened and [o for o in opened if o[0] not in others] == []
        return attempts


def wait_both(m, state):
    for name in ('root', 'data'):
        m.daemon.wait_state(name, state, 30)


def lose_spawner_too(guest, m, watch, others):
    """Its keeper makes another, and reads nothing for it but that one's size."""
    before = m.daemon.spawner
    guest.python('tests.kernel.opens:opened')
    guest.kill(before, signal.SIGKILL)
    wait_until(lambda: m.daemon.spawner not in (before, None), 20, 'another spawner')
    watch.wait(FEW)
    now = m.daemon.spawner
    opened = guest.python('tests.kernel.opens:opened')
    assert [o for o in opened if o[0] not in others and
            not (o[0] == now and o[1].endswith('/statm'))] == []
    assert m.not_held(now) == []
    fields = guest.read(f'/proc/{now}/stat').rsplit(')', 1)[1].split()
    assert (fields[9], fields[10]) == ('0', '0'), 'major faults, its own and of its children'


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
    watch, before = Watch(m), reclaimed(guest)
    churn = guest.spawn(['cat', *[pattern] * CHURN])
    watch.wait(FORKS)
    others = [1, dirtier.pid, program.pid, churn.pid]
    memory, again = numbers(guest, 'meminfo'), reclaimed(guest) - before
    assert watch.end(others) >= ATTEMPTS
    lose_spawner_too(guest, m, watch, others)
    print(f'KiB free {memory["MemFree"]}, to be written {memory["Dirty"]} + '
          f'{memory["Writeback"]}; {again} pages reclaimed')
    assert again and memory['Dirty'] + memory['Writeback'] > DIRTY_MB << 10
    assert (program.rc, dirtier.rc) == (None, None), 'both wait for the device'
    server.start()
    wait_both(m, 'connected')
    assert (program.wait(30), program.output) == (0, 'was read\n')
    assert dirtier.wait(30) == churn.wait(60) == 0


def read_files_of_a_server_that_hangs(guest, m, server):
    """The link lives, and nobody knows yet that the root is away: a process hangs for nbdd."""
    drop_caches(guest)
    server.stop()
    guest.kill(m.pid, signal.SIGHUP)
    asked = guest.spawn(m.daemon.ctl_argv('attach', 'nothing'))
    wait_until(lambda: ('configuration', 'D') in guest.children(m.pid).values(), 20)
    assert asked.wait(30) and 'nothing' in asked.output
    wait_until(lambda: 'cannot be read now' in m.daemon.log(), 20)
    server.kill()
    wait_both(m, 'reconnecting')
    server.start()
    wait_both(m, 'connected')
    # The one that hung may be there until what it waits for is sent again.
    wait_until(lambda: m.daemon.ctl('reload', check=False).rc == 0, 20, 'a reload')


def lose_nbdd_too(m, server):
    """Killed now, it can only be started from elsewhere."""
    server.kill()
    wait_both(m, 'reconnecting')
    m.daemon.crash()
    m.daemon.start()
    server.start()
    wait_both(m, 'connected')


def test_nbdd_reconnects_the_root_that_it_is_on(guest, certificates):
    pattern = guest.path / 'pattern'
    pattern.write_bytes(os.urandom(DATA_MB << 20))
    guest.run(['mkfifo', '/tmp/go'])
    with Nbdkit(guest, ['file', f'dir={EXPORTS}'], tcp=True, options=ONE_THREAD) as server:
        m = LostRoot(guest, server.uri, AT_ONCE)
        assert (m.elsewhere(), m.not_held()) == ([], [])
        guest.python('tests.kernel.opens:watch', filesystems=[AT, EXPORTS, *FILESYSTEMS])
        writer = Workload(guest, f'{AT}/root/file', size='16M', busy=True).start()
        take_memory(guest)
        # What it has forked to take over made its pages those of two processes.
        wait_until(lambda: set(n for n, _ in guest.children(m.pid).values()) <=
                   {'keeper', 'spawner'})
        assert [m.attempts() for _ in range(20)] == [0] * 20
        faults = m.faults()
        assert [m.attempts() for _ in range(20)] == [0] * 20
        assert m.faults() == faults, 'none without a fork'
        lose_it(guest, m, server, pattern)
        read_files_of_a_server_that_hangs(guest, m, server)
        lose_nbdd_too(m, server)
        writer.wait_flowing(30)
        writer.finish()
        m.end()
    guest.run(['cmp', pattern, f'{EXPORTS}/data'])


def relays(guest, m):
    return [pid for pid, (name, _) in guest.children(m.pid).items() if name.startswith('relay')]


def test_nbdd_reconnects_its_root_over_tls(guest, certificates):
    """`root` by the kernel's TLS, `data` by a relay.  Connectors shake hands meanwhile, with the
    keys of before: whoever is to read them anew hangs, and is left alone."""
    tls = [*ONE_THREAD, '--tls=require', f'--tls-certificates={certificates}/pki/server']
    server = Nbdkit(guest, ['file', f'dir={EXPORTS}'], tcp=True, options=tls)
    guest.run(['mkdir', '/tmp/nothing'])
    refuser = Nbdkit(guest, ['file', 'dir=/tmp/nothing'], port=server.port, options=tls)
    with server:
        keys = {**AT_ONCE, 'tls_certificates': f'{certificates}/pki/client'}
        m = LostRoot(guest, nbds(server), keys, {'kernel_tls': 'require'}, {'kernel_tls': 'off'})
        guest.python('tests.kernel.opens:watch', filesystems=[AT, EXPORTS, *FILESYSTEMS])
        writer = Workload(guest, f'{AT}/root/file', size='16M', busy=True).start()
        data = Workload(guest, m.devices[1], size='16M', direct=True).start()
        take_memory(guest)
        server.kill()
        wait_both(m, 'reconnecting')
        drop_caches(guest)
        watch = Watch(m)
        watch.wait(FEW)
        refuser.start()
        wait_until(lambda: refuser.process.output.count('error: open') >= HANDSHAKES, 60)
        readers = {name: pid for pid, (name, state) in guest.children(m.pid).items()
                   if state == 'D' and name.startswith('keys ')}
        assert set(readers) == {'keys root', 'keys data'}
        watch.end([1, refuser.pid, *readers.values()])
        refuser.close()
        server.start()
        wait_both(m, 'connected')
        # The kernel has the relay's socket before the relay itself has begun.
        wait_until(lambda: [m.not_held(pid) for pid in relays(guest, m)] == [[]])
        for w in writer, data:
            w.wait_flowing(30)
            w.finish()
        m.end()
