"""The main job: a filesystem on a device goes through its server's deaths unharmed."""
import pytest

from tests.harness.daemon import Daemon
from tests.harness.servers import NbdServer
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.cost import all_connected
from tests.kernel.disk import TWO, TWO_SECONDS, file_server, mounted, stoppable_server

pytestmark = pytest.mark.guest
# Seconds from the server's return until new I/O and that in flight have ended; the reports
# that it is measured by come every 0.1 s.
RESUMED = 2.0 + 0.1


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


class Outage:
    """One way of losing the server; `begin`, `end`."""

    def __init__(self, guest, server):
        self.guest, self.server = guest, server


class Killed(Outage):
    def begin(self):
        self.server.kill()

    def end(self):
        self.server.start()


class Stopped(Outage):
    def begin(self):
        self.server.kill(15)

    def end(self):
        self.server.start()


class BlackHole(Outage):
    def begin(self):
        self.guest.run(['ip', 'link', 'set', 'lo', 'down'])

    def end(self):
        self.guest.run(['ip', 'link', 'set', 'lo', 'up'])


class Hung(Outage):
    def begin(self):
        self.server.stop()

    def end(self):
        self.server.cont()


def test_a_filesystem_survives_four_outages_without_an_error(guest, daemon):
    with stoppable_server(guest, 'four') as server:
        device = daemon.attach(server.uri, name='four')
        assert guest.block(device[8:], 'queue/io_timeout') == '300'
        with mounted(guest, device) as at:
            writers = [Workload(guest, f'{at}/buffered', size='24M').start(),
                       Workload(guest, f'{at}/direct', size='8M', direct=True).start()]
            took, quiet, watch = {}, {}, Stopwatch()
            for kind in (Killed, Stopped, BlackHole, Hung):
                outage = kind(guest, server)
                before = daemon.status('four')['outages']['count']
                outage.begin()
                writers[1].wait_stuck(1500)
                if kind is not Hung:            # that one cannot be told from a slow one
                    s = daemon.wait_state('four', 'reconnecting', timeout=10)
                    assert s['outages']['count'] == before + 1
                    assert s['connections'][0]['state'] != 'connected'
                outage.end()
                back = writers[0].now_ms()
                took[kind.__name__] = max(w.wait_flowing(30, back) for w in writers)
                quiet[kind.__name__] = watch.quiet_part(took[kind.__name__])
                s = daemon.wait_state('four', 'connected')
                if kind is not Hung:
                    assert s['outages']['last']['reason']
                    # A black hole is not known to be one until the kernel gives up.
                    assert s['outages']['last']['duration_usec'] > 1e6 or kind is BlackHole
            print('resumed after', took)
            for w in writers:
                w.finish()
        assert max(quiet.values()) <= RESUMED, (took, quiet)
        daemon.detach('four')
    assert 'I/O error' not in guest.dmesg()


def test_a_server_that_takes_8_s_to_answer_is_left_alone(guest, daemon):
    with file_server(guest, 'slow', options=['--filter=delay', '--threads=16']) as server:
        server.plugin.append('rdelay=8')
        server.restart()
        device = daemon.attach(server.uri, name='slow')
        watch = Stopwatch()
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'],
                  timeout=60)
        assert watch() >= 8
        s = daemon.status('slow')
        assert s['state'] == 'connected' and s['outages']['count'] == 0
        daemon.detach('slow')


def test_the_same_server_can_die_again_while_io_resumes(guest, daemon):
    with file_server(guest, 'again') as server:
        device = daemon.attach(server.uri, name='again')
        w = Workload(guest, device, direct=True, size='16M').start()
        for number in range(1, 6):
            server.restart()
            wait_until(all_connected(daemon, 1, number), 10)
        w.wait_flowing(10)
        w.finish()
        daemon.detach('again')


def test_the_next_address_is_used_when_the_first_server_is_gone(guest, daemon):
    with file_server(guest, 'both') as first, file_server(guest, 'both') as second:
        daemon.ctl('attach', '--name=both', '--connections=1',
                   f'--addresses=localhost:{first.port},127.0.0.1:{second.port}')
        assert daemon.status('both')['peer'].endswith(f':{first.port}')
        w = Workload(guest, daemon.status('both')['device'], direct=True, size='8M').start()
        first.kill()
        w.wait_flowing(10)
        s = daemon.wait_state('both', 'connected')
        assert s['peer'] == f'127.0.0.1:{second.port}'
        assert s['outages']['count'] == 1
        w.finish()
        daemon.detach('both')
        # Nor does a person who attaches it have to know which of them is there.
        addresses = f'--addresses=localhost:{first.port},127.0.0.1:{second.port}'
        daemon.ctl('attach', '--name=both', '--connections=1', addresses)
        assert daemon.status('both')['peer'] == f'127.0.0.1:{second.port}'
        daemon.detach('both')
        second.kill()
        out = daemon.ctl('attach', '--name=both', '--connections=1', addresses, check=False)
        assert out.rc != 0 and f'127.0.0.1:{second.port}: connect: Connection refused' in out.out


def test_no_connection_goes_to_another_server_while_one_lives(guest, daemon):
    """The first server takes no more, and goes on with those that it has."""
    guest.run(['truncate', '-s', '8M', '/tmp/same'])
    disk = {'disk': {'exportname': '/tmp/same'}}
    with NbdServer(guest, disk, tcp=True) as first, NbdServer(guest, disk, tcp=True) as second:
        daemon.ctl('attach', '--name=same', '--connections=2', '--export=disk',
                   f'--addresses=127.0.0.1:{first.port},127.0.0.1:{second.port}')

        def alive():
            return [c['peer'] for c in daemon.status('same')['connections']
                    if c['state'] == 'connected']
        assert alive() == [f'127.0.0.1:{first.port}'] * 2
        one, other = guest.children(first.pid)
        guest.kill(first.pid, 9)
        wait_until(lambda: not guest.listening(port=first.port))
        guest.kill(one, 9)
        wait_until(lambda: daemon.status('same')['retry']['attempts'] >= 4)
        assert alive() == [f'127.0.0.1:{first.port}']
        guest.kill(other, 9)
        wait_until(lambda: alive() == [f'127.0.0.1:{second.port}'] * 2)
        assert daemon.status('same')['outages']['count'] == 1
        daemon.detach('same')


@pytest.mark.parametrize('which', [0, 1])
def test_two_connections_carry_on_when_one_dies(guest, daemon, which):
    with file_server(guest, 'two') as server:
        device = daemon.attach(server.uri, name='two', **TWO)
        before = daemon.status('two')['connections']
        assert [c['state'] for c in before] == ['connected'] * 2
        w = Workload(guest, device, direct=True, size='16M').start()
        guest.python('tests.kernel.inside:cut_connection', pid=server.pid, port=server.port,
                     which=which)
        watch = Stopwatch()
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'])
        assert watch.quiet() < TWO_SECONDS, 'new I/O takes the other connection at once'
        w.wait_flowing(TWO_SECONDS + RESUMED)

        def replaced():
            s = daemon.status('two')
            assert [c['state'] for c in s['connections']] == ['connected'] * 2, s
            return [c['since'] for c in s['connections']] != [c['since'] for c in before]
        wait_until(replaced)
        assert daemon.status('two')['outages']['count'] == 0, 'one is enough to carry on'
        w.finish()
        daemon.detach('two')


def test_a_server_without_multi_conn_gets_one_connection_and_a_warning(guest, daemon):
    with file_server(guest, 'single', options=['--filter=multi-conn']) as server:
        server.plugin.append('multi-conn-mode=disable')
        server.restart()
        daemon.attach(server.uri, name='single', connections=2)
        s = daemon.status('single')
        assert len(s['connections']) == 1
        assert any('connection' in w for w in s['warnings'])
        assert 'multi' in daemon.log().lower()
        daemon.detach('single')
