"""nbdd killed with -9: the next one finds every device again, and nobody on a device notices."""
import hashlib
import json
import random
import signal
import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import NBDCTL
from tests.harness.service import Service
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.cost import all_connected, descriptors
from tests.kernel.disk import TWO, file_server

pytestmark = pytest.mark.guest


@pytest.fixture(scope='module')
def guest(boot):
    return boot(modules=('unix_diag',))


@pytest.fixture
def server(guest):
    with file_server(guest, 'crash') as s:
        yield s


def directory(daemon):
    return f'{daemon.runtime_dir}/devices'


def state_text(daemon, name):
    return daemon.machine.read(f'{directory(daemon)}/{name}')


def states(daemon):
    """What the state files say, by name."""
    return {name: json.loads(state_text(daemon, name).split('\n')[1])
            for name in daemon.machine.list(directory(daemon)) if not name.startswith('.')}


def seal(state, version=1):
    """A state file's text, with a checksum that fits."""
    text = state if isinstance(state, str) else json.dumps(state)
    return f'nbdd-state {version} {len(text)} {hashlib.sha256(text.encode()).hexdigest()}\n{text}'


def restarted(daemon):
    daemon.crash()
    daemon.start()


def connected(guest):
    """{index: identifier} of what the kernel has."""
    found = {}
    for name in guest.list('/sys/block'):
        if name.startswith('nbd') and guest.exists(f'/sys/block/{name}/pid'):
            found[int(name[3:])] = guest.read(f'/sys/block/{name}/backend').strip()
    return found


@pytest.mark.parametrize('address', ['tcp', 'unix'])
def test_a_healthy_device_is_taken_over_with_all_it_had(guest, address):
    where = {} if address == 'tcp' else {'socket': f'{guest.path}/crash.sock'}
    with file_server(guest, 'healthy', **where) as server, Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='one', reconnect_delay='20ms', **TWO)
        writer = Workload(guest, device, size='16M', direct=True).start()
        server.restart()
        before = wait_until(all_connected(daemon, 1, 1), 40)[0]
        restarted(daemon)
        after = daemon.status('one')
        for same in ('name', 'device', 'state', 'uri', 'size', 'block_size', 'flags', 'outages',
                     'peer', 'warnings'):
            assert after[same] == before[same], (same, before, after)
        assert [c['since'] for c in after['connections']] == \
            [c['since'] for c in before['connections']]
        # The links without descriptors die, are found dead, and replaced.
        server.restart()
        wait_until(all_connected(daemon, 1, 2), 40)
        writer.wait_flowing(60)
        # Attaching it again is a success, with the keys that it has.
        assert daemon.attach(server.uri, name='one', reconnect_delay='20ms', **TWO) == device
        restarted(daemon)
        writer.finish()
        daemon.detach('one')
        assert states(daemon) == {} and connected(guest) == {}


@pytest.mark.parametrize('address', ['tcp', 'unix'])
def test_a_server_lost_while_no_nbdd_ran_is_an_outage(guest, address):
    where = {} if address == 'tcp' else {'socket': f'{guest.path}/lost.sock'}
    with file_server(guest, 'lost', **where) as server, Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='lost', reconnect_delay='20ms')
        writer = Workload(guest, device, size='16M', direct=True).start()
        daemon.crash()
        server.kill()
        daemon.start()
        assert daemon.state('lost') == 'reconnecting'
        outages = daemon.status('lost')['outages']
        assert outages['count'] == 1 and outages['last']['reason'] == \
            'connection lost while no nbdd ran'
        # One that was known goes on from where it began.
        restarted(daemon)
        again = daemon.status('lost')['outages']
        assert (again['count'], again['last']['start']) == (1, outages['last']['start'])
        assert again['total_usec'] > outages['total_usec']
        server.start()
        daemon.wait_state('lost', 'connected', 20)
        writer.wait_flowing(30)
        writer.finish()


def test_a_configured_device_is_the_one_that_was_taken_over(guest, server):
    with Daemon(guest, config=f'[disk]\nuri = {server.uri}\n[late]\nuri = nbd://127.0.0.1:1\n') as d:
        d.wait_state('disk', 'connected')
        assert len(connected(guest)) == 1
        restarted(d)
        assert d.state('disk') == 'connected' and len(connected(guest)) == 1
        # A device that is out does not keep the rest of the files from being read.
        server.kill()
        restarted(d)
        assert d.state('disk') == 'reconnecting'
        wait_until(lambda: d.state('late') == 'connecting')
        server.start()
        d.wait_state('disk', 'connected')


def test_reconnect_of_a_link_without_descriptor_is_refused_where_it_cannot_be(guest, server):
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one')
        restarted(daemon)
        r = daemon.ctl('reconnect', 'one', check=False)
        # This guest's kernel has no CONFIG_INET_DIAG_DESTROY.
        assert r.rc == 1 and 'CONFIG_INET_DIAG_DESTROY' in r.out, r.out
        assert daemon.state('one') == 'connected'


def test_dead_timeout_goes_on_counting(guest, server):
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one', dead_timeout='4s')
        server.kill()
        daemon.wait_state('one', 'reconnecting')
        watch = Stopwatch()
        restarted(daemon)
        daemon.wait_state('one', 'failing', 8)
        assert watch.quiet() < 6
        server.start()
        daemon.wait_state('one', 'connected')


def breakages(good):
    """{name: (text of a state file, what is said of it)}"""
    state = json.loads(good.split('\n')[1])
    torn = good[:300]
    return {
        'torn': (torn, 'cut off'),
        'empty': ('', 'does not begin'),
        'foreign': ('{"name": "foreign"}\n', 'does not begin'),
        'flipped': (good.replace('"index":0', '"index":1'), 'checksum is wrong'),
        'newer': (seal(state, 2), 'its format is version 2'),
        'huge': ('x' * 200000, 'File too large'),
        'number': (seal('1'), 'not one JSON object'),
        'missing': (seal({k: v for k, v in state.items() if k != 'links'}), "'links'"),
        'wild': (seal({**state, 'name': 'wild', 'block-size': 77}), "'block-size' is 77"),
        'renamed': (seal(state), 'of a device of another name'),
        'odd': (seal({**state, 'name': 'odd', 'index': 9}), None),          # has gone
        'twice': (seal({**state, 'name': 'twice'}), 'has been taken over already'),
    }


def test_what_is_not_proved_to_be_ours_is_left_alone_and_reported(guest, server):
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='good')
        broken = breakages(state_text(daemon, 'good'))
        daemon.crash()
        for name, (text, _) in broken.items():
            guest.write(f'{directory(daemon)}/{name}', text)
        guest.sh(f'cd {directory(daemon)}; ln -s good link; mkfifo pipe; mkdir dir;'
                 ' cp good writable; chmod 666 writable')
        daemon.start()
        said = daemon.ctl('status').out
        for name, (_, why) in broken.items():
            lines = [line for line in said.splitlines() if f'/devices/{name} ' in line]
            assert len(lines) == (why is not None), (name, said)
            assert why is None or why in lines[0], (name, lines)
        for name in ('link', 'pipe', 'dir', 'writable'):
            assert f'/devices/{name} is left alone: it is not a file that root' in said, said
        assert [d['name'] for d in daemon.status()] == ['good']
        assert daemon.state('good') == 'connected'
        kept = guest.list(directory(daemon))
        assert set(broken) - set(kept) == {'odd'}
        guest.sh(f'cd {directory(daemon)}; rm -r [!g]*')


def test_a_device_of_others_and_one_without_a_state_are_left_alone(guest, server):
    with Daemon(guest) as daemon, Daemon(guest) as other:
        daemon.attach(server.uri, name='mine')
        other.attach(server.uri, name='other')
        daemon.attach(server.uri, name='own', identifier='an own one')
        before = connected(guest)
        daemon.crash()
        guest.sh(f'cd {directory(daemon)}; rm mine own .mine .own')
        guest.write(daemon.config_path, f'[mine]\nuri = {server.uri}\n'
                                        f'[own]\nuri = {server.uri}\nidentifier = an own one\n')
        daemon.start()
        said = daemon.ctl('status').out
        assert '/dev/nbd0 is attached' in said and 'no state file tells how' in said

        def left_alone():
            """Not a second one on the same export."""
            said = {d['name']: d['retry']['last_error'] for d in daemon.status()}
            return all(f'/dev/nbd{n} is attached' in said.get(name, '') and
                       'no state file' in said[name] for name, n in (('mine', 0), ('own', 2)))
        wait_until(left_alone)
        assert connected(guest) == before and other.state('other') == 'connected'
        # Nor when there is more to tell of than there is room.
        daemon.crash()
        guest.sh(f'cd {directory(daemon)}; for n in $(seq 64); do : > broken$n; done')
        daemon.start()
        wait_until(left_alone)
        assert connected(guest) == before
        guest.sh(f'rm {directory(daemon)}/broken*; nbd-client -d /dev/nbd0; nbd-client -d /dev/nbd2')
        for name in ('mine', 'own'):
            daemon.ctl('reconnect', name)
            daemon.wait_state(name, 'connected')
        assert '/dev/nbd0 is attached' not in daemon.ctl('status').out


def test_a_full_run_is_a_warning_and_not_the_end(guest, server):
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='early', reconnect_delay='20ms')
        guest.run(['dd', 'if=/dev/zero', 'of=/run/full', 'bs=64k'], check=False, timeout=60)
        daemon.attach(server.uri, name='late')
        assert any('cannot be saved' in w for w in daemon.status('late')['warnings'])
        assert daemon.status('early')['warnings'] == []
        # What was there already has its room, and changes can be written.
        server.restart()
        wait_until(all_connected(daemon, 2, 1), 20)
        assert daemon.status('early')['warnings'] == []
        # No move that a kill would undo: such a long name takes more room than there is.
        done = daemon.ctl('move', 'early', server.uri + 'e' * 4000, check=False, timeout=60)
        assert done.rc and 'its state cannot be saved' in done.out, done
        assert daemon.wait_state('early', 'connected', 20)['uri'] == server.uri
        restarted(daemon)
        assert daemon.status('early')['outages']['count'] == 2       # and the way back
        guest.run(['rm', '/run/full'])
        assert 'no state file' in daemon.ctl('status').out          # of `late`
        guest.run(['nbd-client', '-d', '/dev/nbd1'])


def test_a_detach_that_was_under_way_is_finished(guest, server):
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one')
        server.stop()                       # the flush before the detach waits
        p = guest.spawn([NBDCTL, f'--runtime-dir={daemon.runtime_dir}', 'detach', 'one'])
        wait_until(lambda: states(daemon)['one']['phase'] == 'detaching', 20)
        assert connected(guest)
        restarted(daemon)
        server.cont()
        assert p.wait(20) == 0, p.output            # it has asked the next one
        wait_until(lambda: not connected(guest) and not daemon.status(), 20)
        assert states(daemon) == {}


@pytest.mark.parametrize('sig', [signal.SIGKILL, signal.SIGTERM], ids=['KILL', 'TERM'])
def test_descriptors_come_back_from_the_service_manager(guest, server, sig):
    with Service(guest) as service:
        device = service.attach(server.uri, name='one', reconnect_delay='20ms', **TWO)
        writer = Workload(guest, device, size='16M', direct=True).start()
        wait_until(lambda: not guest.children(service.pid))
        fds = descriptors(guest, service.pid)
        service.kill(sig)
        assert '2 of 2 connections alive, 2 with its descriptor' in service.log()
        # With them a reconnect is possible, and takes the old ones out of the store.
        service.ctl('reconnect', 'one')
        wait_until(all_connected(service, 1, 1), 40)
        server.restart()
        wait_until(all_connected(service, 1, 2), 40)
        service.kill(sig)
        # Two connections, and the netlink socket that connected the device.
        assert service.events('started')[-1].endswith('with 3 descriptors')
        wait_until(lambda: not guest.children(service.pid))
        assert descriptors(guest, service.pid) <= fds
        writer.wait_flowing(60)
        writer.finish()
        service.detach('one')
        service.kill(sig)
        assert service.events('started')[-1].endswith('with 1 descriptors')


def test_a_service_manager_that_is_busy_holds_nothing_up_and_learns_later(guest):
    daemon = Daemon(guest)
    said = guest.python('tests.front.notified:busy', argv=daemon.argv(),
                        status=[str(a) for a in daemon.ctl_argv('status')])
    assert [word for word in said if word != 'full'][-2:] == ['READY=1', 'WATCHDOG=1'], said


def test_kills_at_random_instants_lose_nothing(guest):
    rng = random.Random(5)
    with file_server(guest, 'kills') as server, Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='kills', reconnect_delay='20ms',
                               requeue_interval='200ms')
        writer = Workload(guest, device, size='16M', direct=True).start()
        for n in range(15):
            if n % 3:
                server.restart()
            time.sleep(rng.random() * 0.3)      # where in its work it is killed
            restarted(daemon)
            assert [d['name'] for d in daemon.status()] == ['kills']
        daemon.wait_state('kills', 'connected', 20)
        writer.wait_flowing(30)
        writer.finish()
