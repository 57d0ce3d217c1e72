"""Half an hour of random outages, some of them at the same time (tests/run --soak)."""
import os
import random
import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.servers import QemuNbd
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.cost import Cost, all_connected
from tests.kernel.disk import mounted

pytestmark = [pytest.mark.guest, pytest.mark.soak]
MINUTES = float(os.environ.get('NBDD_SOAK_MINUTES', '30'))
SEED = int(os.environ.get('NBDD_SOAK_SEED', '0')) or random.randrange(1 << 32)


def kill(server, guest):
    server.kill()
    return server.start


def terminate(server, guest):
    server.kill(15)
    return server.start


def hang(server, guest):
    server.stop()
    return server.cont


def black_hole(server, guest):
    guest.run(['ip', 'link', 'set', 'lo', 'down'])
    return lambda: guest.run(['ip', 'link', 'set', 'lo', 'up'])


def test_random_outages_lose_nothing_and_let_nothing_grow(guest):
    print('NBDD_SOAK_SEED', SEED)
    rng = random.Random(SEED)
    servers = []
    for n in range(3):
        guest.run(['truncate', '-s', '64M', f'/tmp/soak{n}'])
        servers.append(QemuNbd(guest, f'/tmp/soak{n}', tcp=True).start())
    with Daemon(guest) as daemon:
        devices = [daemon.attach(s.uri, name=f'soak{n}', connections=1 + n % 2)
                   for n, s in enumerate(servers)]
        with mounted(guest, devices[0]) as at:
            writers = [Workload(guest, f'{at}/file', size='24M', busy=True).start()]
            writers += [Workload(guest, d, size='24M', direct=True, busy=True).start()
                        for d in devices[1:]]
            cost = None
            end = time.monotonic() + MINUTES * 60
            while time.monotonic() < end:
                undo = [rng.choice([kill, terminate, hang, black_hole])(s, guest)
                        for s in rng.sample(servers, rng.randint(1, 3))]
                time.sleep(rng.choice([0, 0.1, 1, 3, 8]))       # how long it lasts
                for back in undo:
                    back()
                wait_until(all_connected(daemon, 3), 40, 'all to be back', 0.5)
                for w in writers:
                    # With two connections the kernel looks for requests every 30 s.
                    w.wait_flowing(60)
                cost = cost or Cost(guest, daemon)
            for w in writers:
                w.finish(timeout=120)
        last = Cost(guest, daemon)
        assert last.rss <= cost.rss + 512 and last.fds <= cost.fds, (cost, last)
        for d in devices:
            daemon.detach(d)
    for s in servers:
        s.close()
