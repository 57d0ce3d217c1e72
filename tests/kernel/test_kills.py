"""nbdd killed, stopped and replaced at random instants under load, its servers killed between:
no I/O error, no mismatch, no device lost or doubled, nothing left behind."""
import os
import random
import signal
import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import NBDCTL
from tests.harness.servers import QemuNbd
from tests.harness.service import Service
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.cost import all_connected, descriptors

pytestmark = pytest.mark.guest
SEED = int(os.environ.get('NBDD_KILLS_SEED', '0')) or random.randrange(1 << 32)


def crash(daemon):
    daemon.crash()
    daemon.start()


def stop(daemon):
    daemon.process.kill(signal.SIGTERM)
    assert daemon.process.wait(20) == 0
    daemon.start()


def replace(daemon):
    daemon.replace()


class Fleet:
    """Three devices under load, and a fourth name that comes and goes: a kill shall hit
    attach, reconnect and detach as well."""

    def __init__(self, guest, daemon):
        self.guest, self.daemon, self.servers, self.extra = guest, daemon, [], None
        self.rng = random.Random(SEED)
        print('NBDD_KILLS_SEED', SEED)
        for n in range(3):
            guest.run(['truncate', '-s', '32M', f'/tmp/kills{n}'])
            self.servers.append(QemuNbd(guest, f'/tmp/kills{n}', tcp=n != 1).start())

    def begin(self):
        devices = [self.daemon.attach(s.uri, name=f'kills{n}', reconnect_delay='20ms',
                                      requeue_interval='200ms')
                   for n, s in enumerate(self.servers)]
        self.writers = [Workload(self.guest, d, size='4M', direct=True, rests=True).start()
                        for d in devices]
        self.fds = None

    def disturb(self):
        """Begin something that the next kill may find half done."""
        what = self.rng.choice(['server', 'attach', 'nothing', 'servers'])
        if what == 'attach':
            self.extra = self.daemon.machine.spawn(
                [NBDCTL, f'--runtime-dir={self.daemon.runtime_dir}', 'attach',
                 self.servers[0].uri, '--name=extra'])
        elif what != 'nothing':
            for s in self.servers if what == 'servers' else [self.rng.choice(self.servers)]:
                s.restart()
        time.sleep(self.rng.random() * 0.15)        # where in its work it is hit

    def check(self):
        """All are there, once; what was half attached is, or is not."""
        if self.extra:
            self.extra.wait(30)
            self.extra = None
        names = [d['name'] for d in self.daemon.status()]
        assert sorted(n for n in names if n != 'extra') == ['kills0', 'kills1', 'kills2'], names
        if 'extra' in names:
            self.daemon.detach('extra', check=False)
        backends = [b for b in map(self.backend, self.guest.list('/sys/block')) if b]
        assert len(backends) == len(set(backends)) and len(backends) <= 4, backends

    def backend(self, disk):
        """Whose DISK is, or None: what is not connected has no such file."""
        try:
            return self.guest.read(f'/sys/block/{disk}/backend').split(':')[1]
        except OSError:
            return None

    def settle(self):
        wait_until(all_connected(self.daemon, 3), 60, 'all to be connected', 0.2)
        wait_until(lambda: not self.guest.children(self.daemon.pid), 20)
        for w in self.writers:
            w.wait_flowing(60)
        fds = descriptors(self.guest, self.daemon.pid)
        self.fds = self.fds or fds
        assert fds <= self.fds + 3, (fds, self.fds)         # links with or without descriptors
        left = [n for n, *_ in self.guest.processes().values() if n.startswith(('connect', 'nbdd'))]
        assert left == ['nbdd'], left

    def end(self):
        for w in self.writers:
            w.process.kill(signal.SIGTERM)      # all check their blocks at the same time
        for w in self.writers:
            w.finish(timeout=120)
        for s in self.servers:
            s.close()


def run(guest, daemon, rounds, ways):
    with daemon:
        fleet = Fleet(guest, daemon)
        fleet.begin()
        for n in range(rounds):
            fleet.disturb()
            fleet.rng.choice(ways)(daemon)
            fleet.check()
            if n % 10 == 9:
                fleet.settle()
        fleet.settle()
        fleet.end()


def killed(service):
    service.kill(signal.SIGKILL)


def ended(service):
    service.kill(signal.SIGTERM)


@pytest.fixture(scope='module')
def guest(boot):
    return boot(modules=('unix_diag',), nbds_max=6)


def test_kills_at_random_instants(guest):
    run(guest, Daemon(guest), 40, [crash])


def test_restarts_and_replacements(guest):
    run(guest, Daemon(guest), 10, [stop, replace])


def test_kills_and_restarts_with_descriptors_stored(guest):
    run(guest, Service(guest), 10, [killed, ended])


@pytest.mark.soak
def test_200_kills(guest):
    run(guest, Daemon(guest), 200, [crash])


@pytest.mark.soak
def test_50_restarts_and_20_replacements(guest):
    run(guest, Daemon(guest), 50, [stop])
    run(guest, Daemon(guest), 20, [replace])
