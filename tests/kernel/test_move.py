"""A device moves to another server while it is written to; nothing is lost on the way."""
import json

import pytest

from tests.harness.daemon import Daemon
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import file_server, mounted, twin_servers

pytestmark = pytest.mark.guest
MOVES = 20
STALL_MS = 1500         # beyond what an operation takes here without a move


def usual_ms(*writers):
    """The longest operation so far, on a machine that may have much else to do."""
    wait_until(lambda: all(w.ops() > 300 for w in writers), 60)
    return min(500, max(w.progress()['longest_ms'] for w in writers))


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


def move(daemon, device, *arguments):
    out = daemon.ctl('move', device, *arguments, '--json', timeout=60).out
    return json.JSONDecoder().raw_decode(out[out.index('{'):])[0]     # warnings stand beside it


def refused(daemon, *arguments):
    """nbdctl move ARGUMENTS must fail; what it says."""
    done = daemon.ctl('move', *arguments, check=False, timeout=60)
    assert done.rc != 0, done
    return done.out


def test_20_moves_under_load_lose_nothing_and_stall_for_a_moment(guest, daemon):
    a, b = twin_servers(guest, 'moves')
    watch = Stopwatch()
    with a, b:
        device = daemon.attach(a.uri, name='moves')
        with mounted(guest, device) as at:
            writers = [Workload(guest, f'{at}/buffered', size='16M').start(),
                       Workload(guest, f'{at}/direct', size='8M', direct=True).start()]
            usual = usual_ms(*writers)
            done = []
            for n in range(MOVES):
                there = (b, a)[n % 2]
                done.append(move(daemon, 'moves', there.uri))
                assert daemon.status('moves')['uri'] == there.uri
                assert done[-1]['compared'] > 20
                # What waits for this move is not to wait for the next one, too.
                for w in writers:
                    w.wait_flowing(30)
            s = daemon.status('moves')
            assert (s['state'], s['outages']['count'], s['move']) == ('connected', 0, None)
            longest = max(w.finish()['longest_ms'] for w in writers)
        quiet = watch.quiet_part(longest / 1000) * 1000
        print('pauses', [m['pause_usec'] // 1000 for m in done],
              f'longest {longest}, {quiet:.0f} of a quiet machine; without a move', usual)
        assert quiet <= STALL_MS + usual, (longest, usual)
        wait_until(lambda: guest.block(device[8:], 'queue/io_timeout') == '300')
        daemon.detach('moves')
    assert 'I/O error' not in guest.dmesg()


def test_what_is_wrong_there_leaves_the_device_where_it_is(guest, daemon):
    with file_server(guest, 'here') as here:
        device = daemon.attach(here.uri, name='here')
        w = Workload(guest, device, size='16M', direct=True).start()
        wrong = [file_server(guest, 'small', megabytes=95), file_server(guest, 'other'),
                 file_server(guest, 'here', options=['-r'])]
        said = ['server offers 95 MiB', 'the server has other data', 'read-only']
        for server, text in zip(wrong, said):
            with server:
                assert text in refused(daemon, 'here', server.uri), text
        assert 'refused' in refused(daemon, 'here', wrong[0].uri).lower()
        assert 'block-size' in refused(daemon, 'here', here.uri, '--block-size=4096')
        s = daemon.status('here')
        assert (s['state'], s['uri'], s['outages']['count']) == ('connected', here.uri, 0)
        assert s['peer'].endswith(f':{here.port}')
        w.finish()
        daemon.detach('here')


def test_a_server_that_fails_its_first_read_loses_the_device_again(guest, daemon):
    with file_server(guest, 'first') as old, \
            file_server(guest, 'first', options=['--threads=16', '--filter=delay',
                                                 '--filter=error']) as new:
        new.plugin += ['rdelay=2', 'error-pread-rate=100%']
        new.restart()
        device = daemon.attach(old.uri, name='first')
        assert 'back to the old server' in refused(daemon, 'first', new.uri, '--force')
        s = daemon.wait_state('first', 'connected')
        assert s['uri'] == old.uri and s['peer'].endswith(f':{old.port}')
        assert s['outages']['count'] == 1 and 'first read' in s['outages']['last']['reason']
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'])
        # What the new one has already written the old one may not have: then it stays.
        writer = guest.spawn(['dd', 'if=/dev/zero', f'of={device}', 'bs=4k', 'oflag=direct'])
        text = refused(daemon, 'first', new.uri, '--force')
        assert 'has taken writes already' in text
        assert daemon.wait_state('first', ('connected', 'reconnecting'))['uri'] == new.uri
        writer.kill()
        writer.wait()
        # Nor may it be lost when nobody counts.
        move(daemon, 'first', old.uri, '--force')
        guest.sh(f'echo 0 > /sys/block/{device[5:]}/queue/iostats')
        assert 'may have taken writes' in refused(daemon, 'first', new.uri, '--force')
        assert daemon.wait_state('first', ('connected', 'reconnecting'))['uri'] == new.uri
        daemon.detach('first')


def test_two_connections_move_together(guest, daemon):
    a, b = twin_servers(guest, 'both2')
    watch = Stopwatch()
    with a, b:
        device = daemon.attach(a.uri, name='both2', connections=2, requeue_interval='1s',
                               dead_timeout='0')
        assert len(daemon.status('both2')['connections']) == 2
        w = Workload(guest, device, size='16M', direct=True, jobs=4).start()
        usual = usual_ms(w)
        for there in (b, a, b):
            move(daemon, 'both2', there.uri)
            # A request that is older than requeue-interval ends its connection here.
            wait_until(lambda: [c['peer'] for c in daemon.status('both2')['connections']] ==
                       [f'127.0.0.1:{there.port}'] * 2, 20)
        # Where the servers are slow here, requests in flight wait for requeue-interval.
        longest = w.finish()['longest_ms']
        assert watch.quiet_part(longest / 1000) * 1000 <= STALL_MS + 1000 + usual, longest
        assert longest >= 1000 or daemon.status('both2')['outages']['count'] == 0
        daemon.detach('both2')


def test_a_device_without_its_server_moves_without_a_comparison(guest, daemon):
    a, b = twin_servers(guest, 'gone')
    with a, b:
        device = daemon.attach(a.uri, name='gone')
        w = Workload(guest, device, size='16M', direct=True).start()
        a.kill()
        daemon.wait_state('gone', 'reconnecting')
        done = move(daemon, 'gone', b.uri)
        assert done['compared'] == 0 and any('data was not' in t for t in done['warnings'])
        w.wait_flowing(20)
        s = daemon.status('gone')
        assert (s['state'], s['uri'], s['outages']['count']) == ('connected', b.uri, 1)
        # From now on it is this server that is waited for.
        b.restart()
        wait_until(lambda: daemon.status('gone')['outages']['count'] == 2, 10)
        s = daemon.wait_state('gone', 'connected')
        w.wait_flowing(20)
        assert s['peer'] == f'127.0.0.1:{b.port}'
        w.finish()
        daemon.detach('gone')


def test_one_move_at_a_time_and_it_ends_with_whoever_asked(guest, daemon):
    """A server that is stopped accepts connections and never answers."""
    a, b = twin_servers(guest, 'slow2')
    with a, b:
        daemon.attach(a.uri, name='slow2')
        b.stop()
        how = [*daemon.ctl_argv('move', 'slow2', b.uri)]
        first = guest.spawn(how)
        wait_until(lambda: (daemon.status('slow2')['move'] or {}).get('phase') == 'connecting')
        assert 'already' in refused(daemon, 'slow2', b.uri)
        assert b.uri in daemon.ctl('status', 'slow2').out
        first.kill()
        wait_until(lambda: daemon.status('slow2')['move'] is None)
        # The device loses its server meanwhile, and is detached meanwhile.
        second = guest.spawn(how)
        wait_until(lambda: (daemon.status('slow2')['move'] or {}).get('phase') == 'connecting')
        a.restart()
        assert second.wait() != 0 and 'lost meanwhile' in second.output
        daemon.wait_state('slow2', 'connected')
        third = guest.spawn(how)
        wait_until(lambda: (daemon.status('slow2')['move'] or {}).get('phase') == 'connecting')
        daemon.detach('slow2')
        assert third.wait() != 0 and 'detached' in third.output
        assert not any(s['name'] == 'slow2' for s in daemon.status())
        b.cont()
