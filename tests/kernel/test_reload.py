"""nbdd.conf changes, and `nbdctl reload` has the devices follow."""
import json
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import file_server, twin_servers

pytestmark = pytest.mark.guest


class Config:
    """Sections of nbdd.conf, by name, and the daemon that has them."""

    def __init__(self, guest, daemon):
        self.guest, self.daemon, self.sections = guest, daemon, {}

    def write(self, **sections):
        """SECTIONS replace those of their names; None takes one away."""
        for name, keys in sections.items():
            if keys is None:
                del self.sections[name]
            else:
                self.sections[name] = {**self.sections.get(name, {}), **keys}
        self.guest.write(self.daemon.config_path, ''.join(
            f'[{name}]\n' + ''.join(f'{k.replace("_", "-")} = {v}\n' for k, v in keys.items())
            for name, keys in self.sections.items()))

    def reload(self, rc=0):
        """What nbdctl reload says of each device."""
        done = self.daemon.ctl('reload', '--json', check=False, timeout=60)
        assert done.rc == rc, done
        out = done.out[done.out.index('{'):]
        answer = json.JSONDecoder().raw_decode(out)[0]
        return {row['name']: row for row in answer.get('devices', [])} or answer

    def change(self, rc=0, **sections):
        self.write(**sections)
        return self.reload(rc)


@pytest.fixture
def daemon(guest):
    with Daemon(guest) as d:
        yield d


def since(daemon, name):
    return [c['since'] for c in daemon.status(name)['connections']]


def action(rows):
    return {name: row['action'] for name, row in rows.items()}


def test_devices_follow_their_configuration(guest, daemon):
    a, b = twin_servers(guest, 'follow')
    with a, b, file_server(guest, 'else') as other:
        config = Config(guest, daemon)
        rows = config.change(one={'uri': a.uri, 'device': '/dev/nbd5'},
                             idle={'uri': a.uri, 'auto': 'no'})
        assert action(rows) == {'one': 'attaching'}
        daemon.wait_state('one', 'connected')
        first = since(daemon, 'one')
        assert action(config.reload()) == {'one': 'unchanged'}

        rows = config.change(one={'requeue_interval': '500ms', 'keepalive': '1s',
                                  'dead_timeout': '1s'})
        assert action(rows) == {'one': 'changed'}
        assert sorted(rows['one']['keys']) == ['dead-timeout', 'keepalive', 'requeue-interval']
        wait_until(lambda: guest.block(5, 'queue/io_timeout') == '500')
        assert since(daemon, 'one') == first

        rows = config.change(one={'block_size': '4096', 'read_only': 'yes', 'device': '/dev/nbd6'})
        assert rows['one']['fixed'] == ['block-size', 'read-only', 'device'], rows
        assert (rows['one']['action'], rows['one']['keys']) == ('unchanged', [])
        config.sections['one'] = {'uri': a.uri, 'device': '/dev/nbd5', 'dead_timeout': '1s'}

        w = Workload(guest, '/dev/nbd5', size='8M', direct=True).start()
        rows = config.change(one={'uri': b.uri})
        assert action(rows) == {'one': 'moved'} and 'uri' in rows['one']['keys']
        assert daemon.status('one')['uri'] == b.uri
        wait_until(lambda: guest.block(5, 'queue/io_timeout') == '300', what='its own setting')
        last = since(daemon, 'one')
        rows = config.change(rc=1, one={'uri': other.uri})
        assert action(rows) == {'one': 'not-moved'} and 'other data' in rows['one']['message']
        assert daemon.status('one')['uri'] == b.uri and since(daemon, 'one') == last
        w.finish()

        # With its server gone for good, the file may name another.
        config.change(one={'uri': b.uri})
        b.kill()
        reader = guest.spawn(['dd', 'if=/dev/nbd5', 'of=/dev/null', 'bs=4k', 'count=1',
                              'iflag=direct'])
        daemon.wait_state('one', 'failing')
        assert reader.wait() != 0, 'dead-timeout was changed while attached'
        assert action(config.change(one={'uri': a.uri})) == {'one': 'moved'}
        assert daemon.state('one') == 'connected'

        # A file with an error changes nothing; then one comes and one goes.
        config.write(two={'uri': other.uri}, bad={'uri': 'x'})
        out = daemon.ctl('reload', check=False)
        assert out.rc == 1 and 'nbdd1.conf:' in out.out.replace(
            daemon.config_path, 'nbdd1.conf') and 'error' in out.out
        assert [s['name'] for s in daemon.status()] == ['one']
        config.write(bad=None, one=None)
        daemon.process.kill(signal.SIGHUP)
        wait_until(lambda: 'one: reload: unconfigured' in daemon.log())
        daemon.wait_state('two', 'connected')
        assert daemon.state('one') == 'connected'
        assert action(config.reload()) == {'two': 'unchanged'}
        # Not attached yet: simply begun anew, or given up.
        config.change(late={'uri': b.uri})
        daemon.wait_state('late', 'connecting')
        assert action(config.change(late={'uri': a.uri}))['late'] == 'attaching'
        daemon.wait_state('late', 'connected')
        config.change(never={'uri': b.uri})
        assert action(config.change(never=None))['never'] == 'given-up'
        assert 'no longer' in daemon.log()
