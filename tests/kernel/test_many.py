"""Many devices: they come back together, and cost little."""
import contextlib
import re
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.servers import QemuStorage
from tests.harness.wait import Stopwatch, wait_until
from tests.kernel.cost import Cost, all_connected, idle_wake_ups

pytestmark = pytest.mark.guest
DEVICES, OTHERS = 256, 16           # with the one server, and with another
TOGETHER = 32                       # connections that a connector makes
KIB_OF_ALL = 64 << 10
# Of one restart: the attempts when the connections are lost, those while the server is away,
# the last ones, and threads of the kernel.
FORKS_MAX = 40
ASKS = 4                            # a second, while the server is away
SECONDS_MAX = 3
# What the processes of one user may have on the way, nbdd's limit of open files for them.
DESCRIPTORS_ON_THE_WAY = 64


def forks(guest):
    return int(re.search(r'^processes (\d+)', guest.read('/proc/stat'), re.M).group(1))


def exports(server, first, names):
    return ''.join(f'nbd{first + n} 127.0.0.1 {name} port={server.port},connections=1,auto\n'
                   for n, name in enumerate(names))


class Many:
    """The devices of a daemon: `d` by its log, which costs the guest's one CPU nothing."""

    def __init__(self, guest, daemon, server, other):
        self.guest, self.daemon, self.server, self.other = guest, daemon, server, other
        self.back = 0               # that have come back so far

    def count(self, text):
        return sum(text in line for line in self.daemon.log().splitlines())

    def wait_back(self, n, patience=120):
        self.back += n
        wait_until(lambda: self.count('reconnected after') == self.back, patience,
                   'all to be back', 0.05)

    def connectors(self):
        return [pid for pid, (name, state) in self.guest.children(self.daemon.pid).items()
                if name.startswith('connect ') and state != 'Z']

    def alone(self):
        return not self.guest.children(self.daemon.pid)

    def kib(self):
        """Of nbdd and its processes, what they share counted once."""
        n = 0
        for pid in [self.daemon.pid, *self.guest.children(self.daemon.pid)]:
            with contextlib.suppress(ProcessLookupError):       # it has ended
                text = self.guest.read(f'/proc/{pid}/smaps_rollup')
                n += int(re.search(r'^Pss: +(\d+)', text, re.M).group(1))
        return n

    @contextlib.contextmanager
    def stopped(self):
        self.daemon.process.kill(signal.SIGSTOP)
        try:
            yield
        finally:
            self.daemon.process.kill(signal.SIGCONT)

    def on_the_way(self):
        """Descriptors that were sent to the daemon, and that it has not taken yet."""
        n = 0
        for fd in self.guest.proc_fds(self.daemon.pid):
            with contextlib.suppress(OSError):
                text = self.guest.read(f'/proc/{self.daemon.pid}/fdinfo/{fd}')
                n += sum(map(int, re.findall(r'^scm_fds:\s+(\d+)', text, re.M)))
        return n


@pytest.fixture(scope='module')
def many(boot):
    guest = boot(nbds_max=DEVICES + OTHERS, memory='768M', modules=['sch_netem'])
    guest.run(['truncate', '-s', '64M', '/tmp/many'])
    names = [f'e{n}' for n in range(DEVICES)]
    with QemuStorage(guest, '/tmp/many', names, tcp=True) as server, \
            QemuStorage(guest, '/tmp/many', names[:OTHERS], tcp=True) as other, \
            Daemon(guest, nbdtab=exports(server, 0, names) +
                   exports(other, DEVICES, names[:OTHERS])) as daemon:
        m, watch = Many(guest, daemon, server, other), Stopwatch()
        wait_until(lambda: m.count('attached as') == DEVICES + OTHERS, 600, 'devices', 0.5)
        print(f'{DEVICES + OTHERS} devices attached in {watch():.1f} s')
        wait_until(m.alone, 30)
        yield m
        daemon.crash()              # to detach them takes longer than all the rest


def come_back(m):
    """Restart the server; seconds until all devices are back, those that the server took to
    start, and forks."""
    m.server.kill()
    made, watch = forks(m.guest), Stopwatch()
    m.server.start()
    since_start = Stopwatch()
    m.wait_back(DEVICES)
    seconds, with_start, made = since_start(), watch(), forks(m.guest) - made
    wait_until(m.alone, 30)
    print(f'{DEVICES} devices back {seconds:.2f} s after their server listens again, '
          f'{with_start:.2f} s after it was started; {made} processes and threads')
    return seconds, with_start - seconds, made


def test_256_devices_all_come_back_from_one_restart_of_their_server(many):
    before = Cost(many.guest, many.daemon)
    come_back(many)                 # the kernel makes its threads for dead connections
    _, away, made = come_back(many)
    assert made <= FORKS_MAX + ASKS * away
    after = Cost(many.guest, many.daemon)
    print(f'{before}, {after}, {many.kib()} KiB with children')
    assert after.rss <= KIB_OF_ALL and after.fds <= before.fds
    assert idle_wake_ups(many.guest, many.daemon) <= 1
    for n in (0, DEVICES - 1):
        many.guest.run(['dd', f'if=/dev/nbd{n}', 'of=/dev/null', 'bs=64k', 'count=1',
                        'iflag=direct'])


def test_no_connection_is_lost_when_nbdd_is_slow_to_take_them(many):
    """All connectors have answered, more than may be on the way, before nbdd runs again."""
    m, groups = many, DEVICES // TOGETHER
    with m.stopped():
        m.server.restart()
        m.server.stop()             # so that no connector gets further than its dialling
    wait_until(lambda: len(m.connectors()) >= groups, 60, 'connectors')
    with m.stopped():
        m.server.cont()
        wait_until(lambda: m.on_the_way() >= DESCRIPTORS_ON_THE_WAY, 60, 'answers')
        kib = m.kib()
    m.wait_back(DEVICES)
    assert m.count('the connector process died') == 0
    print(f'{groups} connectors and nbdd: {kib} KiB')
    assert kib <= KIB_OF_ALL


def test_a_far_server_is_dialled_by_all_at_once(many):
    """It is 0.2 s from here to there and back; a connector's would take 32 times that."""
    m = many
    m.guest.run(['tc', 'qdisc', 'replace', 'dev', 'lo', 'root', 'netem', 'delay', '100ms',
                 'limit', '10000'])
    try:
        m.server.restart()
        watch = Stopwatch()
        m.wait_back(DEVICES)
        print(f'{DEVICES} devices back {watch():.2f} s after their far server listens again')
        assert watch.quiet() < TOGETHER * 0.2
    finally:
        m.guest.run(['tc', 'qdisc', 'del', 'dev', 'lo', 'root'])
    wait_until(m.alone, 30)


def test_a_hanging_server_and_a_missing_export_hold_no_other_device_up(many):
    m, whole = many, many.server.exports
    with m.stopped():
        m.other.restart()
        m.other.stop()              # it listens, and says nothing
        m.server.restart(exports=[name for name in whole if name != 'e7'])
    m.wait_back(DEVICES - 1)
    assert m.daemon.state('nbd7') == 'refused'
    assert {m.daemon.state(f'nbd{DEVICES + n}') for n in (0, OTHERS - 1)} == {'reconnecting'}
    m.other.cont()
    m.wait_back(OTHERS)
    m.server.restart(exports=whole)
    m.wait_back(DEVICES)
    wait_until(all_connected(m.daemon, DEVICES + OTHERS), 30, 'all to be well', 1)


@pytest.mark.soak
def test_256_devices_are_back_within_3_seconds_on_a_machine_of_its_own(many):
    for _ in range(5):
        assert come_back(many)[0] <= SECONDS_MAX
