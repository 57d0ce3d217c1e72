"""nbdd.conf changes, and `nbdctl reload` has the devices follow."""
import json
import signal

import pytest

from tests.harness.daemon import Daemon, attached
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


def lowest_free(guest):
    taken = attached(guest)
    return next(f'/dev/nbd{n}' for n in range(16) if f'nbd{n}' not in taken)


def action(rows):
    return {name: row['action'] for name, row in rows.items()}


def test_devices_follow_their_configuration(guest, daemon):
    a, b = twin_servers(guest, 'follow')
    # At the end, where a move looks, lest the two that are empty be taken for the same.
    guest.sh('echo other data | dd of=/tmp/follow bs=4k seek=$((96 * 256 - 1)) conv=notrunc,sync')
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

        # A dead-timeout that is changed in an outage counts in it, and with the server gone for
        # good the file may name another.
        config.change(one={'uri': b.uri, 'dead_timeout': '1h'})
        b.kill()
        daemon.wait_state('one', 'reconnecting')
        rows = config.change(one={'dead_timeout': '1s'})
        assert action(rows) == {'one': 'changed'} and 'already' in rows['one']['message']
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


def test_what_a_reload_changes_outlives_a_crash(guest, daemon):
    with file_server(guest, 'kept') as server:
        config = Config(guest, daemon)
        config.change(kept={'uri': server.uri}, left={'uri': server.uri, 'read_only': 'yes'})
        for name in ('kept', 'left'):
            daemon.wait_state(name, 'connected')
        rows = config.change(kept={'reconnect_delay': '3s', 'size_change': 'grow'}, left=None)
        assert action(rows) == {'kept': 'changed', 'left': 'unconfigured'}
        daemon.crash()
        daemon.start()
        assert action(config.reload()) == {'kept': 'unchanged'}
        assert action(config.change(kept={'auto': 'no'})) == {'kept': 'unchanged'}
        daemon.crash()
        daemon.start()
        config.write(kept=None)
        assert config.reload() == {'devices': []}, 'auto=no came with a reload, too'


def test_a_node_named_in_the_files_is_not_the_device_of_another_name_that_has_it(guest, daemon):
    with file_server(guest, 'mine') as mine, file_server(guest, 'its') as its:
        config = Config(guest, daemon)
        node = daemon.attach(mine.uri, name='scratch')
        name = node[5:]
        rows = config.change(**{name: {'uri': its.uri}})
        assert action(rows) == {name: 'attaching'}
        named = [s for s in daemon.status() if s['name'] == name]
        assert len(named) == 1 and "connected already" in named[0]['retry']['last_error'], named
        scratch = daemon.status('scratch')
        assert (scratch['uri'], scratch['state']) == (mine.uri, 'connected')
        daemon.detach(node)
        assert [s['name'] for s in daemon.status()] == [name], 'the one that was attached has gone'
        daemon.ctl('reconnect', name, check=False)
        daemon.wait_state(name, 'connected')
        assert daemon.status(node)['uri'] == its.uri


def test_a_number_that_was_a_guess_makes_room_for_one_that_is_asked_for(guest, daemon):
    with file_server(guest, 'here') as here, file_server(guest, 'away') as away:
        config = Config(guest, daemon)
        away.kill()
        config.change(waits={'uri': away.uri})
        daemon.wait_state('waits', 'connecting')
        node = lowest_free(guest)
        config.change(asks={'uri': here.uri, 'device': node})
        assert daemon.wait_state('asks', 'connected')['device'] == node
        daemon.detach(node)
        assert [s['name'] for s in daemon.status()] == ['waits']
        node = lowest_free(guest)
        assert daemon.attach(here.uri, name='asked', device=node) == node
        away.start()
        daemon.wait_state('waits', 'connected')
        assert daemon.status(node)['name'] == 'asked'


def test_a_name_that_is_a_node_is_the_name_of_that_node_alone(guest, daemon):
    with file_server(guest, 'node') as server:
        assert daemon.attach(server.uri, name='nbd9') == '/dev/nbd9'
        out = daemon.ctl('attach', server.uri, '--name=nbd8', '--device=/dev/nbd7', check=False)
        assert out.rc != 0 and 'nbdN is the name of /dev/nbdN alone' in out.out, out
        # A node that somebody has open cannot be attached: the next one is, under its own name.
        node = lowest_free(guest)
        opener = guest.spawn(['sh', '-c', f'exec sleep 60 < {node}'])
        wait_until(lambda: node in guest.sh(f'readlink /proc/{opener.pid}/fd/0').out)
        unnamed = daemon.attach(server.uri, keepalive='1s')
        opener.kill(signal.SIGKILL)
        assert unnamed != node and daemon.status(unnamed)['name'] == unnamed[5:]
        assert guest.read(f'/sys/block/{unnamed[5:]}/backend').startswith(
            f'nbdd:{unnamed[5:]}:'), guest.read(f'/sys/block/{unnamed[5:]}/backend')
        assert sorted(s['name'] for s in daemon.status()) == sorted(['nbd9', unnamed[5:]])
        files = guest.sh(f'ls {daemon.runtime_dir}/devices').out.split()
        assert sorted(files) == sorted(['nbd9', unnamed[5:]]), files
