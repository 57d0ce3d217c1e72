"""What is below /sys/block/nbdN/queue may be locked as long as a server is away: nbdd itself does
not look at it."""
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.kernel.disk import file_server, twin_servers

pytestmark = pytest.mark.guest


def ask(daemon, method, **parameters):
    """What nbdd answers, without nbdctl."""
    return daemon.machine.call(daemon.socket, f'io.nbdd.Manager.{method}', parameters)


def answers(daemon):
    """It shows the device, and counts for it."""
    s = daemon.status('a')
    text = ask(daemon, 'Metrics')['parameters']['text']
    assert f'nbdd_device_requests_in_flight{{device="{s["device"][5:]}"' in text, text
    return s


def in_d_state(guest, *processes):
    assert all(guest.read(f'/proc/{p.pid}/stat').rsplit(')', 1)[1].split()[0] == 'D'
               for p in processes)
    return True


def test_who_waits_for_a_frozen_queue_does_not_keep_nbdd_from_ending_the_wait(guest):
    """Who sets another scheduler has the queue's lock, and waits for a read that the server does
    not answer; a new nbdd takes over meanwhile, and then there is another server."""
    with file_server(guest, 'frozen') as server, Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='a')
        queue = f'/sys/block/{device[5:]}/queue'
        server.stop()
        reader = guest.spawn(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1',
                              'iflag=direct'])
        wait_until(lambda: daemon.status('a')['io']['in_flight'] == 1)
        setter = guest.spawn(['sh', '-c', f'echo none >{queue}/scheduler'])
        wait_until(lambda: in_d_state(guest, reader, setter))
        looker = guest.spawn(['cat', f'{queue}/logical_block_size'])
        wait_until(lambda: in_d_state(guest, looker))
        assert answers(daemon)['state'] == 'connected'
        daemon.crash()
        daemon.start()
        assert answers(daemon)['io']['in_flight'] == 1
        server.kill()
        daemon.wait_state('a', 'reconnecting')
        # Whether somebody has it cannot be seen now.
        assert 'error' in ask(daemon, 'Detach', device='a')
        assert answers(daemon)['state'] == 'reconnecting'
        server.start()
        daemon.wait_state('a', 'connected')
        assert [p.wait(20) for p in (reader, setter, looker)] == [0, 0, 0]
        wait_until(lambda: guest.read(f'{queue}/io_timeout') == '300\n', 20, 'its settings')
        daemon.detach('a')


def test_nbdd_opens_nothing_below_the_queue_of_a_device(guest):
    a, b = twin_servers(guest, 'seen')
    with a, b, Daemon(guest) as daemon:
        pids = {daemon.pid}
        guest.python('tests.kernel.opens:watch', filesystems=['/sys'])
        daemon.attach(a.uri, name='a')
        answers(daemon)
        daemon.replace()
        pids.add(daemon.pid)
        assert 'error' not in ask(daemon, 'Move', device='a', keys={'uri': b.uri})
        b.kill()
        daemon.wait_state('a', 'reconnecting')
        answers(daemon)
        b.start()
        daemon.wait_state('a', 'connected')
        daemon.crash()
        daemon.start()
        pids.add(daemon.pid)
        daemon.detach('a')
        daemon.attach(a.uri, name='a')
        a.kill()
        daemon.wait_state('a', 'reconnecting')
        assert ask(daemon, 'Detach', device='a') == {'parameters': {}}, 'nobody has opened it'
        opened = guest.python('tests.kernel.opens:opened')
        below = [(pid, path) for pid, path in opened if '/queue/' in path]
        assert {path.rsplit('/', 1)[1] for _, path in below} >= {'io_timeout', 'iostats'}
        assert any(pid in pids for pid, _ in opened), 'it would have been seen'
        assert [o for o in below if o[0] in pids] == []
