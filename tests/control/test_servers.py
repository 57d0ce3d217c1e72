"""nbdctl list and info: real servers, old ones, forbidding ones, hostile ones."""
import json
import subprocess

import pytest

from tests.control.test_nbdctl import (FAILED, FORBIDDEN, OK, UNSUPPORTED, USAGE, complains,
                                       explains, run)
from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_proto import Opt, Rep
from tests.harness.paths import NBDCTL
from tests.harness.pki import make_certificates, make_keys
from tests.harness.script_server import Export, Script, ScriptServer
from tests.harness.scripts import SCRIPTS
from tests.harness.servers import Nbdkit, NbdServer, QemuNbd
from tests.harness.wait import Stopwatch

CONTROL = b'a\x1b[31mred\x07\r\n\x7f\xff'
REFUSALS = {'POLICY': 'policy', 'INVALID': 'invalid', 'PLATFORM': 'platform',
            'TLS_REQD': 'nbds', 'UNKNOWN': 'no export of this name', 'SHUTDOWN': 'shutting down',
            'BLOCK_SIZE_REQD': 'block sizes', 'TOO_BIG': 'too big'}


@pytest.fixture
def image(host):
    path = host.path / 'image'
    path.write_bytes(bytes(3 << 20))
    return path


def ok(*args):
    result = run(*args)
    assert (result.returncode, result.stderr) == (OK, ''), result
    return result.stdout


def ok_json(*args):
    return json.loads(ok(*args, '--json'))


# ---- list ----------------------------------------------------------------------------------

def test_list_has_names_and_descriptions(host, image):
    with QemuNbd(host, image, export='data', options=['-D', 'daily backups']) as server:
        assert ok('list', server.uri) == 'data: daily backups\n'
        assert ok_json('list', server.uri) == \
            {'exports': [{'name': 'data', 'description': 'daily backups'}]}


def test_list_of_several_exports_over_tcp(host, image):
    exports = {name: {'exportname': image} for name in ('a', 'b', 'größe')}
    with NbdServer(host, exports, tcp=True) as server:
        assert sorted(ok('list', server.uri).splitlines()) == ['a', 'b', 'größe']


def test_the_default_export_can_be_seen_in_a_list(host):
    with Nbdkit(host) as server:
        assert ok('list', server.uri) == '""\n'
        assert ok_json('list', server.uri) == {'exports': [{'name': '', 'description': ''}]}


@pytest.fixture(scope='module')
def tls(tmp_path_factory):
    at = tmp_path_factory.mktemp('tls')
    (at / 'pki').mkdir()
    return {**make_certificates(at / 'pki'), 'psk': make_keys(at)[0]}


def test_list_and_info_take_the_keys_of_tls(host, tls):
    with Nbdkit(host, tcp=True, options=['--tls=require', '--tls-verify-peer',
                                         f'--tls-certificates={tls["server"]}']) as server:
        keys = [f'--tls-certificates={tls["client"]}', '--tls-hostname=localhost']
        for uri in (server.uri.replace('nbd:', 'nbds:'), server.uri):
            assert ok_json('info', uri, '--tls', *keys)['tls'] is True
            assert ok('list', uri, '--tls=require', *keys) == '""\n'
        assert complains(run('info', server.uri), FAILED, 'nbds')
        assert complains(run('info', server.uri, '--tls', f'--tls-certificates={host.path}'),
                         FAILED, 'neither ca-cert.pem nor client-cert.pem')
    with Nbdkit(host, options=['--tls=require', f'--tls-psk={tls["psk"]}']) as server:
        keys = [f'--tls-psk-file={tls["psk"]}', '--tls-username=bob']
        assert ok_json('info', server.uri, '--tls', *keys)['tls'] is True
        keys += ['--tls-priority=NORMAL:-VERS-ALL:+VERS-TLS1.2']
        assert ok_json('info', server.uri, '--tls', *keys)['tls'] is True
    assert complains(run('info', server.uri, '--read-only'), USAGE, 'no option `read-only`')
    assert complains(run('list', server.uri, '--tls=maybe'), USAGE, 'require')


def test_a_server_without_exports_lists_none():
    with ScriptServer(Script(option={Opt.LIST: pieces.option_says(Rep.ACK)})) as server:
        assert ok('list', server.uri()) == ''
        assert ok_json('list', server.uri()) == {'exports': []}


def test_listing_that_policy_forbids_is_status_6(host, image):
    with NbdServer(host, {'a': {'exportname': image}}, generic={'allowlist': 'false'},
                   tcp=True) as server:
        assert complains(run('list', server.uri), FORBIDDEN, 'policy forbids')
        assert explains(run('list', '--json', server.uri), FORBIDDEN, 'policy forbids')


@pytest.mark.parametrize('options', [['--mask-handshake=0'], ['--oldstyle']], ids=str)
def test_listing_that_a_server_is_too_old_for_is_status_7(host, options):
    with Nbdkit(host, options=options) as server:
        assert complains(run('list', server.uri), UNSUPPORTED, 'too old')
        assert explains(run('list', '--json', server.uri), UNSUPPORTED, 'too old')


def test_a_server_that_does_not_know_the_option_is_status_7():
    with ScriptServer(SCRIPTS['list-unknown'].make({'': Export()})) as server:
        assert explains(run('list', server.uri(), '--json'), UNSUPPORTED, 'does not know')


@pytest.mark.parametrize('name, word', [r for r in REFUSALS.items() if r[0] != 'POLICY'])
def test_other_refusals_to_list_are_status_1_and_say_why(name, word):
    code = getattr(Rep, f'ERR_{name}')
    with ScriptServer(Script(option={Opt.LIST: pieces.option_error(code)})) as server:
        assert complains(run('list', server.uri()), FAILED, word)


def test_a_list_has_at_most_10000_exports():
    with ScriptServer(SCRIPTS['endless-list'].make({'': Export()})) as server:
        assert complains(run('list', server.uri()), FAILED)


def test_control_bytes_in_names_are_escaped():
    def lists(session, option):
        return p.rep_server(CONTROL, CONTROL) + session.usual(option)
    with ScriptServer(Script({}, option={Opt.LIST: lists})) as server:
        out = ok('list', server.uri())
        assert out == r'a\x1b[31mred\x07\x0d\x0a\x7f\xff: a\x1b[31mred\x07\x0d\x0a\x7f\xff' + '\n'
        raw = subprocess.run([NBDCTL, 'list', '--json', server.uri()], capture_output=True).stdout
        assert not set(raw) & set(b'\x1b\x07\r\x7f')
        assert json.loads(raw.decode())['exports'][0]['name'] == 'a\x1b[31mred\x07\r\n\x7f\ufffd'


# ---- info ----------------------------------------------------------------------------------

def test_info_tells_what_the_server_says(host, image):
    with QemuNbd(host, image, export='data', options=['-D', 'backups', '-r']) as server:
        info = ok_json('info', server.uri)
        assert info == {
            'uri': server.uri, 'export': 'data', 'description': 'backups', 'size': 3 << 20,
            'read_only': True, 'flags': info['flags'],
            'block_size': {'minimum': 1, 'preferred': 4096, 'maximum': 32 << 20},
            'contexts': ['base:allocation'], 'protocol': 'newstyle-fixed', 'tls': False}
        assert {'read-only', 'flush', 'fua'} <= set(info['flags'])
        out = ok('info', server.uri)
        for text in ('Export: data', 'Description: backups', 'Size: 3 MiB (3145728 bytes)',
                     'Access: read-only', 'minimum 1 B, preferred 4 KiB, maximum 32 MiB',
                     'Contexts: base:allocation', 'Protocol: newstyle-fixed', 'TLS: off'):
            assert text in out, text


def test_info_of_nbd_server_has_the_right_size(host, image):
    with NbdServer(host, {'a': {'exportname': image}}, tcp=True) as server:
        assert ok_json('info', server.uri)['size'] == 3 << 20


@pytest.mark.parametrize('options, protocol', [
    (['--mask-handshake=0'], 'newstyle'), (['--oldstyle'], 'oldstyle')])
def test_info_works_with_old_servers(host, options, protocol):
    with Nbdkit(host, ['memory', '5M'], options=options) as server:
        info = ok_json('info', server.uri)
        assert (info['size'], info['protocol']) == (5 << 20, protocol)
        assert info['contexts'] == [] and info['block_size']['minimum'] is None


def test_info_of_an_empty_export(host):
    with Nbdkit(host, ['memory', '0']) as server:
        assert ok_json('info', server.uri)['size'] == 0


@pytest.mark.parametrize('name, word', REFUSALS.items())
def test_a_refused_export_says_why(name, word):
    refusal = pieces.option_error(getattr(Rep, f'ERR_{name}'))
    with ScriptServer(Script(option={Opt.GO: refusal, Opt.INFO: refusal})) as server:
        assert explains(run('info', server.uri(), '--json'), FAILED, word)


# ---- what cannot be reached, or says anything ----------------------------------------------

@pytest.mark.parametrize('verb', ['list', 'info'])
@pytest.mark.parametrize('uri, word', [
    ('nbd://127.0.0.1:1/', 'refused'), ('nbd+unix:///?socket=/nonexistent', 'No such file'),
    ('foo', 'scheme'), ('http://h/', 'scheme'), ('nbd+unix:///x', 'socket'),
    ('nbd://\x1b[31m/', r'\x1b[31m'),
])
def test_a_server_that_cannot_be_reached_is_status_1(verb, uri, word):
    assert explains(run(verb, uri, '--json'), FAILED, word)


@pytest.mark.parametrize('name', sorted(n for n, s in SCRIPTS.items() if s.expect != 'silent'))
def test_any_server_gets_a_list_and_info_or_one_clear_error(name):
    with ScriptServer(SCRIPTS[name].make({'': Export()})) as server:
        for verb in ('list', 'info'):
            watch = Stopwatch()
            result = run(verb, server.uri())
            assert watch.quiet() < 15
            if result.returncode:
                assert complains(result, result.returncode)
            assert not set(result.stdout + result.stderr) & set('\x1b\x07\r')


@pytest.mark.parametrize('verb', ['list', 'info'])
def test_a_server_that_answers_no_farewell_holds_nobody_up(verb):
    with ScriptServer(Script(option={Opt.ABORT: pieces.stall}, limit_seconds=50)) as server:
        watch = Stopwatch()
        assert ok(verb, server.uri())
        assert watch.quiet() < 30


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(n for n, s in SCRIPTS.items() if s.expect == 'silent'))
def test_a_silent_server_costs_15_seconds(name):
    with ScriptServer(SCRIPTS[name].make({'': Export()})) as server:
        watch = Stopwatch()
        result = run('info', server.uri())
        assert watch.quiet() < 18
        assert result.returncode == OK or complains(result, FAILED, 'no answer within 15 s')
