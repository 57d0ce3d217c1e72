"""nbdd killed, or replaced, in the middle of a move: the device is on one of the two servers, the
next nbdd knows on which, and nobody on the device has noticed."""
import os
import random
import signal
import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.service import Service
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import twin_servers
from tests.kernel.tls_guest import install, nbds, qemu_tls

pytestmark = pytest.mark.guest
SEED = int(os.environ.get('NBDD_KILLS_SEED', '0')) or random.randrange(1 << 32)


def talks_to(guest, servers):
    """The ports of the SERVERS that have a connection."""
    ports = {f'{s.port:04X}': s.port for s in servers}
    lines = (line.split() for line in guest.read('/proc/net/tcp').splitlines()[1:])
    return {ports[f[1][-4:]] for f in lines if f[3] == '01' and f[1][-4:] in ports}


class Moves:
    """A device that is written to, and goes to and fro between SERVERS."""

    def __init__(self, guest, daemon, servers, uris, **keys):
        self.guest, self.daemon = guest, daemon
        self.servers = dict(zip(uris, servers))
        self.rng = random.Random(SEED)
        print('NBDD_KILLS_SEED', SEED)
        self.device = daemon.attach(uris[0], name='moves', **keys)
        self.writer = Workload(guest, self.device, size='2M', direct=True, rests=True).start()
        watch = Stopwatch()
        self.begin(uris[1]).wait(60)
        self.usual = watch()
        self.late = self.done = 0

    def begin(self, uri):
        return self.guest.spawn(self.daemon.ctl_argv('move', 'moves', uri))

    def phase(self):
        return (self.daemon.status('moves')['move'] or {}).get('phase')

    def wait_for_some_moment(self, mover, port, late):
        """In the middle of it: anywhere; or LATE, about when the connection to PORT is cut."""
        def begun():
            return port not in talks_to(self.guest, self.servers.values()) if late \
                else self.phase()
        wait_until(lambda: mover.rc is not None or begun(), 30, interval=0.001)
        time.sleep(self.rng.random() * (0.1 if late else self.usual))

    def disturbed(self, disturb, late):
        """A move that DISTURB happens to in the middle."""
        here = self.daemon.status('moves')['uri']
        there = next(uri for uri in self.servers if uri != here)
        mover = self.begin(there)
        self.wait_for_some_moment(mover, self.servers[here].port, late)
        disturb()
        moved = mover.wait(60) == 0
        s = self.daemon.wait_state('moves', 'connected', 30)
        server = self.servers[s['uri']]
        assert s['peer'] == f'127.0.0.1:{server.port}', s
        assert s['uri'] == there or not moved, mover.output
        wait_until(lambda: talks_to(self.guest, self.servers.values()) == {server.port})
        self.writer.wait_flowing(30)
        self.done += s['uri'] == there
        return s

    def end(self, rounds):
        """Each connection can be lost as before; all that was written is there."""
        print(f'{self.done} of {rounds} moves were made')
        s = self.daemon.status('moves')
        self.servers[s['uri']].restart()
        wait_until(lambda: self.daemon.status('moves')['outages']['count'] > s['outages']['count'])
        self.daemon.wait_state('moves', 'connected', 30)
        self.writer.wait_flowing(30)
        self.writer.finish()
        assert 'I/O error' not in self.guest.dmesg()
        self.daemon.detach('moves')


def kill_in_moves(guest, rounds):
    a, b = twin_servers(guest, 'killed')
    with a, b, Service(guest) as service:
        moves = Moves(guest, service, (a, b), (a.uri, b.uri), reconnect_delay='20ms')
        for n in range(rounds):
            moves.disturbed(lambda: service.kill(signal.SIGKILL), n % 3)
        moves.end(rounds)


def test_kills_in_the_middle_of_moves(guest):
    kill_in_moves(guest, 6)


@pytest.mark.soak
def test_100_kills_in_the_middle_of_moves(guest):
    kill_in_moves(guest, 100)


def test_replacements_in_the_middle_of_tls_moves(guest):
    at = install(guest)
    a, b = twin_servers(guest, 'replaced')
    for s in (a, b):
        s.options += qemu_tls(at)
    with a, b, Daemon(guest) as daemon:
        moves = Moves(guest, daemon, (a, b), (nbds(a), nbds(b)), reconnect_delay='20ms',
                      tls_certificates=f'{at}/pki/client', kernel_tls='require')
        for n in range(4):
            s = moves.disturbed(daemon.replace, n % 2)
            assert s['tls']['in_kernel'] and s['tls']['version'] == 'TLS1.3', s
        moves.end(4)
