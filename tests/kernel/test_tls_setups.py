"""Setups of TLS that do not work: each says why, is tried again slowly, and works once it is
repaired, without a restart."""
import shutil

import pytest

from tests.harness.daemon import Daemon
from tests.harness.pki import Authority
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until
from tests.kernel.tls_guest import Misbehaving, install, nbds

pytestmark = pytest.mark.guest
CONNECT_TIMEOUT = 60            # seconds: many connect at once here
ANSWER = 40                     # until each has said why
RETRY = 5                       # seconds: reconnect-delay-max


class Setup:
    """A server, a device of nbdd.conf, and what is wrong with them.  The files that the server
    and the device use are copies: `here` is their directory."""

    def __init__(self, guest, at, name, row):
        self.guest, self.at, self.name, self.row = guest, at, name, row
        self.here = at / 'setups' / name
        shutil.copytree(at / 'pki' / row.get('server', 'server'), self.here / 'server')
        shutil.copytree(at / 'pki' / row.get('client', 'client'), self.here / 'client')
        shutil.copy(at / 'keys.psk', self.here / 'server.psk')
        shutil.copy(at / 'keys.psk', self.here / 'client.psk')
        self.keys = {'tls-certificates': self.here / 'client'}
        if row.get('psk'):
            self.keys = {'tls-psk-file': self.here / 'client.psk',
                         'tls-username': row.get('user', 'alice')}
        self.keys |= {k: str(v).format(at=self.at) for k, v in row.get('keys', {}).items()}
        self.server = self.make_server(row)
        self.spoil = row.get('spoil', lambda s: None)
        self.spoil(self)
        self.server.start()

    def make_server(self, row):
        if 'priority' in row:
            server = Misbehaving(self.guest, self.at, self.name, row['priority'])
            return server
        options = ['--tls=require', f'--tls-certificates={self.here}/server', '--tls-verify-peer']
        if row.get('psk'):
            options = ['--tls=require', f'--tls-psk={self.here}/server.psk']
        return Nbdkit(self.guest, ['memory', '1M'], tcp=True,
                      options=row.get('options', options))

    @property
    def uri(self):
        uri = self.server.uri if self.row.get('plain') else nbds(self.server)
        return uri.replace('127.0.0.1', self.row.get('host', '127.0.0.1'))

    def section(self):
        keys = '' if self.row.get('plain') else ''.join(
            f'{k} = {v}\n' for k, v in self.keys.items())
        return f'[{self.name}]\nuri = {self.uri}\n{keys}'

    def expected(self):
        host = self.row.get('host', '127.0.0.1')
        head = '' if self.row.get('reading') else f'{host}:{self.server.port}: '
        return head + self.row['says'].format(at=self.at, here=self.here)

    def repair(self):
        self.row['repair'](self)


def certificate_of(name, kind='server'):
    """Another certificate takes the place of that in use; servers read theirs at the start."""
    def act(s):
        shutil.rmtree(s.here / kind)
        shutil.copytree(s.at / 'pki' / name, s.here / kind)
        if kind == 'server':
            s.server.restart()
    return act


def key_file(text, mode=0o600):
    def act(s):
        (s.here / 'client.psk').write_text(text)
        (s.here / 'client.psk').chmod(mode)
    return act


def good_key(s):
    shutil.copy(s.at / 'keys.psk', s.here / 'client.psk')


def cut(name):
    def act(s):
        file = s.here / 'client' / name
        file.write_bytes(file.read_bytes()[:150])
    return act


def mode(name, bits):
    return lambda s: (s.here / name).chmod(bits)


def server_with(*options):
    return lambda s: s.server.restart(options=list(options))


good_client = certificate_of('client', 'client')
good_server = certificate_of('server')
TLS = 'handshake: TLS: '
READ = 'TLS: '
OTHER = ('TLS: {} with {} cannot be taken over; TLS 1.2 or 1.3 with AES-128-GCM, AES-256-GCM or '
         'CHACHA20-POLY1305 can: Operation not supported')

SETUPS = {
    'expired': {'server': 'expired', 'repair': good_server, 'says': TLS +
                "server's certificate or its CA's has expired; the server's is valid until "
                '2022-01-01 00:00:00 UTC: Key has expired'},
    'early': {'server': 'early', 'repair': good_server, 'says': TLS +
              "server's certificate is not valid before 2090-01-01 00:00:00 UTC: "
              'Key was rejected by service'},
    'unknown-ca': {'client': 'stranger', 'repair': good_client, 'says': TLS +
                   "server's certificate is signed by an unknown CA, none of those in "
                   '{here}/client: Key was rejected by service'},
    'wrong-name': {'server': 'named', 'host': 'localhost', 'repair': good_server, 'says': TLS +
                   "server's certificate is for disk.example, 192.0.2.7, not for localhost: "
                   'Key was rejected by service'},
    'wrong-address': {'server': 'named', 'repair': good_server, 'says': TLS +
                      "server's certificate is for disk.example, 192.0.2.7, not for 127.0.0.1: "
                      'Key was rejected by service'},
    'revoked': {'client': 'crl', 'repair': good_client, 'says': TLS +
                "server's certificate is revoked, by ca-crl.pem in {here}/client: "
                'Key has been revoked'},
    'no-client': {'client': 'ca-only', 'repair': good_client, 'says': TLS +
                  'server hung up after the TLS handshake: it asked for a client certificate, '
                  'and there is none in {here}/client: Key was rejected by service'},
    'no-client-1.2': {'client': 'ca-only', 'repair': good_client, 'says': TLS +
                      'server hung up during the TLS handshake: it asked for a client '
                      'certificate, and there is none in {here}/client: '
                      'Key was rejected by service',
                      'keys': {'tls-priority': 'NORMAL:-VERS-ALL:+VERS-TLS1.2'}},
    'strange-client': {'client': 'strange-client', 'repair': good_client, 'says': TLS +
                       'server hung up after the TLS handshake: it asked for a client '
                       'certificate of a CA that did not make the one in {here}/client: '
                       'Key was rejected by service'},
    'expired-client': {'client': 'expired-client', 'repair': good_client, 'says': TLS +
                       'server hung up after the TLS handshake: it may not accept the client '
                       'certificate in {here}/client: Key was rejected by service'},
    'open-client': {'spoil': mode('client/client-key.pem', 0o644), 'reading': True,
                    'repair': mode('client/client-key.pem', 0o600), 'says': READ +
                    '{here}/client/client-key.pem holds a secret, but its mode 0644 lets '
                    "everybody have it; run 'chmod 600 {here}/client/client-key.pem', and "
                    'think of a new key: Permission denied'},
    'cut-ca': {'spoil': cut('ca-cert.pem'), 'reading': True, 'repair': good_client, 'says': READ +
               '{here}/client/ca-cert.pem cannot be used: Base64 unexpected header error.: '
               'Invalid argument'},
    'cut-client': {'spoil': cut('client-cert.pem'), 'reading': True, 'repair': good_client,
                   'says': READ +
                   '{here}/client/client-cert.pem and client-key.pem cannot be used: '
                   'Base64 unexpected header error.: Invalid argument'},
    'cut-key': {'spoil': cut('client-key.pem'), 'reading': True, 'repair': good_client,
                'says': READ +
                '{here}/client/client-cert.pem and client-key.pem cannot be used: '
                'The requested data were not available.: Invalid argument'},
    'no-key': {'spoil': lambda s: (s.here / 'client/client-key.pem').unlink(), 'reading': True,
               'repair': good_client, 'says': READ +
               '{here}/client/client-cert.pem has no key: there is no '
               '{here}/client/client-key.pem: No such file or directory'},
    'other-key': {'spoil': lambda s: shutil.copy(s.at / 'pki/server/server-key.pem',
                                                 s.here / 'client/client-key.pem'),
                  'reading': True, 'repair': good_client, 'says': READ +
                  '{here}/client/client-cert.pem and client-key.pem cannot be used: '
                  'The certificate and the given key do not match.: Invalid argument'},
    'no-files': {'spoil': lambda s: shutil.rmtree(s.here / 'client'), 'reading': True,
                 'repair': lambda s: shutil.copytree(s.at / 'pki/client', s.here / 'client'),
                 'says': READ + 'neither ca-cert.pem nor client-cert.pem is in {here}/client: '
                 'No such file or directory'},
    'wrong-psk': {'psk': True, 'spoil': key_file('alice:00112233445566778899aabbccddeeff\n'),
                  'repair': good_key, 'says': TLS +
                  "server refused the pre-shared key of user 'alice' (it hung up): "
                  'Key was rejected by service'},
    'unknown-user': {'psk': True, 'user': 'dave', 'says': TLS +
                     "server refused the pre-shared key of user 'dave' (it hung up): "
                     'Key was rejected by service',
                     'spoil': key_file('dave:00112233445566778899aabbccddeeff\n'),
                     'repair': lambda s: (shutil.copy(s.here / 'client.psk',
                                                      s.here / 'server.psk'),
                                          s.server.restart())},
    'user-without-key': {'psk': True, 'user': 'carol', 'reading': True, 'says': READ +
                         "{here}/client.psk has no key for user 'carol': "
                         'Required key not available',
                         'repair': lambda s: (key_file(
                             'carol:00112233445566778899aabbccddeeff\n')(s),
                             shutil.copy(s.here / 'client.psk', s.here / 'server.psk'),
                             s.server.restart())},
    'open-psk': {'psk': True, 'spoil': mode('client.psk', 0o644), 'reading': True,
                 'repair': mode('client.psk', 0o600), 'says': READ +
                 '{here}/client.psk holds a secret, but its mode 0644 lets everybody have it; '
                 "run 'chmod 600 {here}/client.psk', and think of a new key: "
                 'Permission denied'},
    'no-psk': {'psk': True, 'spoil': lambda s: (s.here / 'client.psk').unlink(),
               'reading': True, 'repair': good_key,
               'says': READ + 'reading {here}/client.psk: No such file or directory'},
    'bad-psk': {'psk': True, 'spoil': key_file('alice:zz\n'), 'reading': True,
                'repair': good_key, 'says': READ + "the key of user 'alice' in "
                '{here}/client.psk is not pairs of hexadecimal digits: Invalid argument'},
    'no-tls': {'options': [], 'says': 'handshake: server refused TLS, but handle TLS '
               "setting is 'require' (2): Operation not supported",
               'repair': lambda s: s.server.restart(options=[
                   '--tls=on', f'--tls-certificates={s.here}/server'])},
    'needs-tls': {'plain': True, 'repair': server_with(),
                  'says': 
                  'handshake: server requires TLS encryption first: '
                  'Operation not supported'},
    'old-tls': {'priority': 'NORMAL:-VERS-ALL:+VERS-TLS1.1',
                'says': TLS +
                'server sent alert 40: Handshake failed: no TLS version, cipher or key '
                'exchange is common to both sides: Operation not supported',
                'repair': lambda s: s.server.restart(priority='NORMAL')},
    'no-cipher': {'priority': 'NORMAL:-CIPHER-ALL:+AES-128-CBC:+AES-128-CCM',
                  'says': TLS +
                  'server sent alert 40: Handshake failed: no TLS version, cipher or key '
                  'exchange is common to both sides: Operation not supported',
                  'repair': lambda s: s.server.restart(priority='NORMAL')},
    # Neither kernel nor relay has these: only a tls-priority of somebody's own offers them.
    'ccm': {'priority': 'NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-CCM',
            'keys': {'tls-priority': 'NORMAL'}, 'says': OTHER.format('TLS1.3', 'AES-128-CCM'),
            'repair': lambda s: s.server.restart(priority='NORMAL')},
    'cbc': {'priority': 'NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-CBC',
            'keys': {'tls-priority': 'NORMAL'}, 'says': OTHER.format('TLS1.2', 'AES-256-CBC'),
            'repair': lambda s: s.server.restart(priority='NORMAL')},
}


@pytest.fixture(scope='module')
def guest(boot):
    return boot(memory='512M', nbds_max=len(SETUPS))


@pytest.fixture(scope='module')
def at(guest):
    place = install(guest)
    other = Authority(place / 'third', 'Third CA')
    pki = place / 'pki'
    strange = other.issue(pki / 'strange-client', 'client')
    shutil.copy(pki / 'ca-only' / 'ca-cert.pem', strange)
    ca = Authority.__new__(Authority)
    ca.path = pki / 'ca'
    ca.issue(pki / 'expired-client', 'client', end='2022-01-01 00:00:00')
    (place / 'setups').mkdir()
    return place


def test_each_says_why_and_works_when_it_is_repaired(guest, at):
    setups = [Setup(guest, at, name, row) for name, row in SETUPS.items()]
    assert len(setups) >= 20
    text = f'[defaults]\nconnect-timeout = {CONNECT_TIMEOUT}s\n'
    watch = Stopwatch()
    with Daemon(guest, config=text + ''.join(s.section() for s in setups)) as daemon:
        def by_name():
            return {d['name']: d for d in daemon.status()}

        def tried(times):
            def all_tried():
                found = by_name()
                assert all(found[s.name]['retry']['attempts'] >= times for s in setups)
                return found
            return all_tried
        found = wait_until(tried(1), ANSWER, 'every device to say why', 0.3)
        said = {s.name: found[s.name]['retry']['last_error'] for s in setups}
        assert said == {s.name: s.expected() for s in setups}
        assert {d['state'] for d in found.values()} == {'connecting'}
        found = wait_until(tried(2), 60, 'a second attempt', 1)
        # Pauses begin with less, and are up to a quarter shorter.
        most = max(d['retry']['attempts'] for d in found.values())
        assert most <= 4 + watch() / (RETRY * 3 / 4)
        log = daemon.log()
        for s in setups:
            assert log.count(f'nbdd: {s.name}: not attached: ') == 1, 'said once'
            s.repair()

        def connected():
            left = {n: d['retry']['last_error'] for n, d in by_name().items()
                    if d['state'] != 'connected'}
            assert not left, left
            return True
        wait_until(connected, 60, 'all to be connected', 1)
        secret = (at / 'keys.psk').read_text().split(':')[1].split()[0]
        assert secret not in daemon.log()
    for s in setups:
        s.server.close()
