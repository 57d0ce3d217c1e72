"""Faults drawn from a seed against devices under verified load: no I/O error, nothing lost.

NBDD_FAULTS_SEED=N plays the same faults again; NBDD_FAULTS_ONLY=NAME[,NAME] just these.  The
short run is part of every test run, always with the same seed unless told otherwise, so that a
change fails it and not the draw; the long one, of `tests/run --soak`, draws its seed and lasts
NBDD_SOAK_MINUTES."""
import contextlib
import itertools
import os
import random
import time

import pytest

from tests.faults import faults
from tests.harness.paths import ROOT
from tests.harness.servers import QemuNbd
from tests.harness.service import Service
from tests.harness.split import Connections, known_users, of_a_user
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.cost import Cost, all_connected
from tests.kernel.disk import TWO, file_server, mounted, stoppable_server
from tests.kernel.tls_guest import install, nbds, tls_server

pytestmark = pytest.mark.guest
GIVEN = int(os.environ.get('NBDD_FAULTS_SEED', '0'))
USUAL = 2026112207
ONLY = [name for name in os.environ.get('NBDD_FAULTS_ONLY', '').split(',') if name]
SHORT = float(os.environ.get('NBDD_FAULTS_SECONDS', '75'))
LONG = float(os.environ.get('NBDD_SOAK_MINUTES', '30')) * 60
BACK = 60               # seconds after which all must be well again
RSS_GROWTH = 2048       # kB, over all faults


class Split(Service):
    """As a user, which lets `nbdd --serve=connections` make its connections."""

    @property
    def keeper(self):
        return self.connections.pid

    @property
    def spawner(self):
        return next(iter(self.connections.spawners()), None)

    @classmethod
    def enter(cls, guest, stack):
        stack.enter_context(known_users(guest))
        self = of_a_user(cls, guest)
        self.connections = Connections(guest, f'{self.runtime_dir}-connect').start()
        stack.callback(self.connections.stop)
        return stack.enter_context(self)


class World:
    """A guest with devices of every kind, each written to and read back all the time."""

    def __init__(self, guest, stack, as_user):
        self.guest = guest
        self.daemon = Split.enter(guest, stack) if as_user else \
            stack.enter_context(Service(guest))
        # A device with a filesystem; qemu-nbd can be asked to end without an I/O error.
        self.polite = stack.enter_context(stoppable_server(guest, 'polite'))
        proxied = stack.enter_context(file_server(guest, 'proxied'))
        local = stack.enter_context(file_server(guest, 'local', socket=f'{guest.path}/local'))
        keys = install(guest)
        encrypted = stack.enter_context(tls_server(guest, keys, 'encrypted'))
        relayed = stack.enter_context(tls_server(guest, keys, 'relayed'))
        self.servers = [self.polite, proxied, local, encrypted, relayed]
        port = self.start_proxy(proxied)
        client = {'tls_certificates': f'{keys}/pki/client'}
        uris = {'polite': self.polite.uri, 'proxied': f'nbd://127.0.0.1:{port}/',
                'local': local.uri, 'encrypted': nbds(encrypted), 'relayed': nbds(relayed)}
        more = {'polite': {}, 'proxied': TWO,
                'local': {}, 'encrypted': client, 'relayed': {'kernel_tls': 'off', **client}}
        self.devices = {name: self.attach(name, uri, **more[name])
                        for name, uri in uris.items()}
        at = stack.enter_context(mounted(guest, self.devices['polite']))
        self.writers = [Workload(guest, f'{at}/file', size='16M', jobs=1).start()]
        self.writers += [Workload(guest, self.devices[name], size='16M', jobs=1,
                                  direct=True).start()
                         for name in uris if name != 'polite']

    def attach(self, name, uri, **more):
        """On a busy machine a process that only begins may take as long as it is given here."""
        keys = {'requeue_interval': '200ms', 'reconnect_delay_max': '500ms',
                'connect_timeout': '3s', 'keepalive': '1s', 'keepalive_timeout': '3s', **more}
        return wait_until(lambda: self.daemon.attach(uri, name=name, **keys), 30,
                          f'{name} to be attached', 1)

    def start_proxy(self, server):
        port = self.guest.port()
        self.orders = '/tmp/proxy-orders'
        self.guest.write(self.orders, 'pass')
        self.proxy = self.guest.spawn(['/usr/bin/python3', '-B', '-E', '-s',
                                       ROOT / 'tests/faults/proxy.py', port, server.port,
                                       self.orders])
        wait_until(lambda: self.guest.listening(port=port), 20, 'the proxy')
        return port

    def tell_proxy(self, word):
        self.guest.write(self.orders, word)

    def cut_proxied(self):
        self.servers[1].kill()
        self.servers[1].start()

    def wait_refused(self, reason):
        status = self.daemon.wait_state('polite', 'refused', timeout=30)
        assert reason in status['retry']['last_error'], status

    def check_well(self):
        """All is well again: within BACK seconds, however many faults there were."""
        wait_until(all_connected(self.daemon, len(self.devices)), BACK, 'all to be back', 0.3)
        for writer in self.writers:
            writer.wait_flowing(BACK)
            report = writer.progress()
            assert (report['errors'], report['mismatches']) == (0, 0), (writer.path, report)
        assert self.proxy.rc is None, self.proxy.output

    def finish(self):
        for writer in self.writers:
            writer.finish(timeout=120)


def steps(seed):
    if not ONLY:
        return faults.plan(seed)
    chosen = [f for f in faults.FAULTS if f.name in ONLY]
    assert len(chosen) == len(ONLY), 'no such fault'
    return itertools.cycle([([(f, random.Random(seed))], 1) for f in chosen])


def play(world, seed, seconds):
    """Let faults happen for so long; how often each did."""
    watch, seen, cost = Stopwatch(), {}, None
    for number, (step, lasts) in enumerate(steps(seed)):
        if watch() > seconds:
            break
        names = ' + '.join(f.name for f, _ in step)
        print(f'{watch():6.1f} s: step {number}: {names}, {lasts} s', flush=True)
        undo = [f.begin(world, rng) for f, rng in step]
        time.sleep(lasts)                       # how long the fault lasts
        for back in reversed(undo):
            if back:
                back()
        try:
            world.check_well()
        except AssertionError:
            print(world.guest.dmesg()[-6000:], *world.daemon.status(), sep='\n')
            for p in (*(s.process for s in world.servers), world.proxy):
                print(p.argv, p.rc, p.output[-500:])
            raise
        for f, _ in step:
            seen[f.name] = seen.get(f.name, 0) + 1
        cost = cost or Cost(world.guest, world.daemon)
    last = Cost(world.guest, world.daemon)
    print(f'{sum(seen.values())} faults of {len(seen)} kinds; {cost}, then {last}')
    assert last.rss <= cost.rss + RSS_GROWTH, (cost, last)
    return seen


def run(boot, seed, seconds, as_user):
    print(f'NBDD_FAULTS_SEED={seed}')
    guest = boot(memory='512M', modules=('unix_diag', 'sch_netem'))
    with contextlib.ExitStack() as stack:
        world = World(guest, stack, as_user)
        seen = play(world, seed, seconds)
        world.finish()
        for device in world.devices.values():
            if device != world.devices['polite']:
                world.daemon.detach(device)
    return seen


WHO = pytest.mark.parametrize('as_user', [False, True], ids=['root', 'user'])


@WHO
def test_faults_lose_nothing(boot, as_user):
    seconds = SHORT * (0.4 if as_user else 1)
    assert len(run(boot, GIVEN or USUAL, seconds, as_user)) >= 3 or ONLY


@pytest.mark.soak
@WHO
def test_half_an_hour_of_faults_loses_nothing(boot, as_user):
    seen = run(boot, GIVEN or random.randrange(1 << 32), LONG, as_user)
    assert LONG < 600 or ONLY or set(seen) == {f.name for f in faults.FAULTS}


def test_the_same_seed_gives_the_same_faults():
    def first(seed):
        return [([f.name for f, _ in step], [rng.random() for _, rng in step], lasts)
                for step, lasts in itertools.islice(faults.plan(seed), 100)]
    assert first(7) == first(7) != first(8)
    assert {name for names, _, _ in first(7) for name in names} == \
        {f.name for f in faults.FAULTS}
