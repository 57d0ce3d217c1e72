"""A server that is broken, or means harm: one clear error, in time, and nobody else notices."""
import re

import pytest

from tests.harness.daemon import Daemon
from tests.harness.script import Scripted
from tests.harness.scripts import SCRIPTS
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
CONNECT_TIMEOUT = 2
RSS_GROWTH = 1024               # kB that all hostile servers together may cost the daemon


def at_handshake():
    """Scripts that spoil an attach: what they do is done before the first command, and not in
    options that a device does without."""
    for name, row in sorted(SCRIPTS.items()):
        script = row.make({})
        if row.expect in ('refused', 'broken', 'closed', 'silent') and 'meta' not in name and \
                not script.command and not script.any_command:
            yield name


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


@pytest.fixture(scope='module')
def hostile(guest):
    with Scripted(guest, size=1 << 20) as server:
        yield server


@pytest.fixture(scope='module', autouse=True)
def bystander(guest, daemon):
    """A device of a good server, written to and read all the time."""
    with file_server(guest, 'good') as server:
        device = daemon.attach(server.uri, name='good')
        # Enough to notice, and to leave the one CPU to others.
        watch = Stopwatch()
        writer = Workload(guest, device, size='8M', jobs=1, direct=True, rests=True).start()
        rss = int(guest.proc_status(daemon.pid)['VmRSS'])
        yield writer
        report = writer.finish()
        longest = report['longest_ms'] / 1000
        assert watch.quiet_part(longest) < 2, f'the other device was held up for {longest} s'
        s = daemon.status('good')
        assert s['state'] == 'connected' and s['outages']['count'] == 0
        grown = int(guest.proc_status(daemon.pid)['VmRSS']) - rss
        assert grown < RSS_GROWTH, f'grown by {grown} kB'
        daemon.detach('good')


@pytest.mark.parametrize('name', at_handshake())
def test_attach_fails_with_one_clear_error(guest, daemon, hostile, name):
    hostile.switch(name)
    watch = Stopwatch()
    r = daemon.ctl('attach', hostile.uri, '--name=bad', f'--connect-timeout={CONNECT_TIMEOUT}s',
                   check=False, timeout=30)
    assert r.rc != 0, r.out
    assert watch.quiet() < CONNECT_TIMEOUT + 10         # on a machine with much to do
    assert len(r.out.splitlines()) == 1 and len(r.out) < 1000, r.out
    assert not re.search(r'[\x00-\x09\x0b-\x1f\x7f]', r.out), repr(r.out)
    assert '127.0.0.1' in r.out or 'bad' in r.out, 'the error does not say which'
    assert [s['name'] for s in daemon.status()] == ['good']


def test_control_bytes_of_the_server_reach_no_log(daemon, hostile):
    hostile.switch('refuse-control-text')
    daemon.ctl('attach', hostile.uri, '--name=bad', check=False)
    assert '\x1b' not in daemon.log() and '\x07' not in daemon.log()
    assert r'\x1b' in daemon.log().lower()


@pytest.mark.parametrize('name', ['wrong-reply-magic', 'unknown-cookie', 'close-at-read',
                                  'half-at-read', 'stall-at-read'])
def test_a_device_of_a_server_that_breaks_off_in_use_can_be_detached(guest, daemon, hostile,
                                                                     name):
    hostile.switch('lasting')
    device = daemon.attach(hostile.uri, name='breaks', reconnect_delay_max='500ms')
    hostile.switch(name)
    daemon.ctl('reconnect', 'breaks')
    before = len(hostile.events())
    p = guest.spawn(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'])
    wait_until(lambda: any(e['event'] == 'request' for e in hostile.events()[before:]), 20,
               'the read to reach the server')
    assert p.rc is None, 'the read waits for a server that keeps to the protocol'
    watch = Stopwatch()
    daemon.detach('breaks', '--force')
    assert watch.quiet() < 2
    assert p.wait(10) != 0


def test_a_server_that_closes_one_connection_after_the_other_is_asked_with_pauses(
        guest, daemon, hostile):
    """After the second an eighth of a second, then twice as long each time, up to a second."""
    hostile.switch('lasting')
    device = daemon.attach(hostile.uri, name='closes')

    def times():
        return daemon.log().count('closes: reconnected')
    hostile.switch('brief')
    daemon.ctl('reconnect', 'closes')
    wait_until(lambda: times() >= 5, 30)
    begun, watch = times(), Stopwatch()
    wait_until(lambda: watch() > 5, 6)
    print(times() - begun, 'connections in', watch())
    assert times() - begun <= 4
    wait_until(lambda: times() >= begun + 2, 30)
    hostile.switch('lasting')
    daemon.wait_state('closes', 'connected')
    guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'])
    daemon.detach('closes')


def test_a_server_that_turns_good_again_is_used_again(guest, daemon, hostile):
    hostile.switch('lasting')
    device = daemon.attach(hostile.uri, name='turns', reconnect_delay_max='500ms',
                           connect_timeout='1s')
    hostile.switch('stall-at-greeting')
    daemon.ctl('reconnect', 'turns', check=False)
    daemon.wait_state('turns', 'reconnecting')
    hostile.switch('lasting')
    daemon.wait_state('turns', 'connected')
    guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'])
    daemon.detach('turns')
