"""Broken input of our own side: configuration and control messages."""
import pathlib

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.kernel.cost import descriptors
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
CONTROL = 'tests.kernel.inside:'


@pytest.fixture(scope='module')
def server(guest):
    with file_server(guest, 'disk') as s:
        yield s


def test_broken_lines_do_not_keep_the_other_devices_from_attaching(guest, server):
    nbdtab = f'''# a comment
nbd0 127.0.0.1 good auto,port={server.port}
nbd1 127.0.0.1 bad auto,port=99999
what is this line of nonsense
nbd2
nbd3 127.0.0.1 \x01\x02 auto,nosuchoption,port={server.port}
nbd4 127.0.0.1 late auto,port={server.port}
'''
    config = f'''[named]
uri = {server.uri}

[wrong]
uri = {server.uri}
dead-timeout = soon
'''
    with Daemon(guest, nbdtab, config) as d:
        for name in ('nbd0', 'nbd4', 'named'):
            d.wait_state(name, 'connected')
        log = d.log()
        assert f'{d.nbdtab_path}:3:' in log and '99999' in log
        assert f'{d.nbdtab_path}:4:' in log and f'{d.nbdtab_path}:5:' in log
        assert f'{d.config_path}:6:' in log and 'soon' in log
        assert '\x01' not in log
        names = {s['name'] for s in d.status()}
        assert not names & {'nbd1', 'nbd2', 'wrong'}
        r = d.ctl('check', d.nbdtab_path, check=False)
        assert r.rc != 0 and f'{d.nbdtab_path}:3:' in r.out


@pytest.mark.parametrize('content', ['\x7fELF\x01\x02\x03' * 1000, '[' * 5000, '=\n' * 3000,
                                     '[a]\n' * 2000, 'x' * 100000],
                         ids=['binary', 'brackets', 'equals', 'sections', 'one-line'])
def test_a_configuration_of_garbage_is_reported_and_survived(guest, server, content):
    d = Daemon(guest)
    for path in (d.nbdtab_path, d.config_path):
        # Through the shared directory: such files are longer than a request.
        pathlib.Path(path).write_text(content)
    with d:
        assert d.nbdtab_path in d.log() or d.config_path in d.log()
        assert len(d.log()) < 200_000
        d.attach(server.uri, name='works')
        d.detach('works')


class TestControl:
    @pytest.fixture(scope='class')
    def daemon(self, guest, server):
        with Daemon(guest) as d:
            d.attach(server.uri, name='kept')
            yield d

    @pytest.fixture(autouse=True)
    def unharmed(self, guest, daemon):
        pid, rss = daemon.pid, int(guest.proc_status(daemon.pid)['VmRSS'])
        yield
        assert daemon.pid == pid and daemon.state('kept') == 'connected'
        assert daemon.status('kept')['outages']['count'] == 0
        assert int(guest.proc_status(daemon.pid)['VmRSS']) < rss + 6000
        guest.run(['dd', 'if=' + daemon.status('kept')['device'], 'of=/dev/null', 'bs=4k',
                   'count=1', 'iflag=direct'])

    @pytest.mark.parametrize('raw', [
        'hello\0', '{}\0', '[]\0', '{"method": 5}\0', '{"method": "io.nbdd.Manager.Nothing"}\0',
        '{"method": "io.nbdd.Manager.Detach", "parameters": {"device": 5}}\0',
        '{"method": "io.nbdd.Manager.Detach", "parameters": {"device": "' + 'x' * 5000 + '"}}\0',
        '{"method": "io.nbdd.Manager.Attach", "parameters": {"keys": {"uri": "nbd://\x01"}}}\0',
        '{"method": "io.nbdd.Manager.Attach", "parameters": {"keys": {"nosuch": "1"}}}\0',
        '{"method": "io.nbdd.Manager.Attach", "parameters": {"device": "/dev/sda", '
        '"keys": {"uri": "nbd://localhost"}}}\0',
        '\xff\xfe\xfd\0', '{"a":' * 2000 + '\0', '\0' * 100,
    ], ids=range(13))
    def test_a_wrong_message_gets_an_error(self, guest, daemon, raw):
        answer = guest.python(CONTROL + 'ask', path=daemon.socket, raw=raw)
        assert answer == 'closed' or answer is None or 'error' in answer, answer

    def test_a_message_longer_than_the_limit_is_refused(self, guest, daemon):
        sent, answer = guest.python(CONTROL + 'long_message', path=daemon.socket, megabytes=16)
        assert sent < 8 << 20
        assert answer is None or 'error' in answer

    def test_half_a_message_harms_nobody(self, guest, daemon):
        fds = descriptors(guest, daemon.pid)
        for raw in ('{"method": "io.nbdd.Man', '{', '\0{"method"'):
            guest.python(CONTROL + 'ask', path=daemon.socket, raw=raw, half=True)
        assert daemon.status('kept')
        wait_until(lambda: len(guest.proc_fds(daemon.pid)) <= fds, 10,
                   'descriptors to be closed')

    def test_who_is_not_root_may_look_and_not_touch(self, guest, daemon):
        call = lambda method, **parameters: guest.python(               # noqa: E731
            CONTROL + 'as_nobody', path=daemon.socket, method=f'io.nbdd.Manager.{method}',
            parameters=parameters)
        assert call('Status')['parameters']['devices'][0]['name'] == 'kept'
        for method, parameters in (('Detach', {'device': 'kept'}),
                                   ('Reconnect', {'device': 'kept'}),
                                   ('Attach', {'name': 'kept'})):
            assert call(method, **parameters)['error'] == \
                'org.varlink.service.PermissionDenied'

    def test_a_crowd_of_silent_clients_shuts_nobody_out_for_long(self, guest, daemon):
        assert guest.python(CONTROL + 'crowd', path=daemon.socket, clients=300)
