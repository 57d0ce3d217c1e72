"""TLS against real servers: certificates, pre-shared keys, and how each setup fails."""
import contextlib
import errno
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import threading

import pytest

from tests.harness.nbd_ctypes import Handle, NbdError, buffer, completion
from tests.harness.paths import BUILD
from tests.harness.pki import make_certificates, make_keys
from tests.harness.servers import Nbdkit, NbdServer, QemuNbd

SIZE = 4 << 20
CONTENT = random.Random(7).randbytes(SIZE)
DISABLE, ALLOW, REQUIRE = 0, 1, 2


@pytest.fixture(scope='module')
def pki(tmp_path_factory):
    """Directories of certificates by name."""
    return make_certificates(tmp_path_factory.mktemp('pki'))


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
    """Files of pre-shared keys: (alice and bob), (alice with another key)."""
    return make_keys(tmp_path_factory.mktemp('psk'))


@pytest.fixture
def image(host):
    path = host.path / 'image'
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def start(host):
    """start(Kind, arguments...) starts a server that is closed after the test."""
    started = []

    def make(kind, *arguments, **at):
        started.append(kind(host, *arguments, **at).start())
        return started[-1]
    yield make
    for server in started:
        server.close()


@pytest.fixture
def handle():
    handles = []

    def create(tls=REQUIRE, **settings):
        h = Handle()
        handles.append(h)
        h.set_tls(tls)
        for name, value in settings.items():
            h.call('set_' + name, str(value) if name.startswith('tls_') and
                   not isinstance(value, bool) else value)
        return h
    yield create
    for h in handles:
        h.close()


def x509(start, pki, name='server', *options, plugin=('memory', SIZE)):
    return start(Nbdkit, [str(p) for p in plugin], tcp=True, options=[
        '--tls=require', f'--tls-certificates={pki[name]}', *options])


def psk(start, keys, tls='require', plugin=('memory', SIZE)):
    return start(Nbdkit, [str(p) for p in plugin],
                 options=[f'--tls={tls}', f'--tls-psk={keys[0]}'])


def connect(h, server, host='localhost'):
    if server.port:
        h.connect_tcp(host, str(server.port))
    else:
        h.connect_unix(server.socket)


def refusal(h, server, host='localhost'):
    """The error of a connection that is not made; the handle is dead by it."""
    with pytest.raises(NbdError) as e:
        connect(h, server, host)
    assert h.aio_is_dead()
    return e.value


def check_data(h, size=1 << 20):
    """Requests of many sizes, then many at a time, against a model."""
    rng = random.Random(5)
    model = bytearray(SIZE)
    for at, count in ((0, SIZE // 2), (SIZE // 2, SIZE // 2), (1, 1), (511, 16385),
                      (12345, 3 * 16384), (777, size)):
        data = rng.randbytes(count)
        h.write(at, data)
        model[at:at + count] = data
    assert h.read(0, SIZE) == model
    kept, failed = [], []

    def done(error):
        failed.append(error[0])
        return 1
    for i in range(64):
        at, count = i << 16, rng.choice((512, 4096, 65536))
        data = rng.randbytes(count)
        model[at:at + count] = data
        kept.append((buffer(data), completion(done)))
        h.aio_pwrite(kept[-1][0], count, at, kept[-1][1], 0)
    h.poll_until(lambda: len(failed) == 64)
    reads = []
    for i in range(64):
        reads.append((buffer(65536), completion(done)))
        h.aio_pread(reads[-1][0], 65536, i << 16, reads[-1][1], 0)
    h.poll_until(lambda: len(failed) == 128)
    assert not any(failed)
    assert b''.join(r[0].raw[:65536] for r in reads) == model


# What works -------------------------------------------------------------------------------

def test_data_through_certificates_on_both_sides(start, handle, pki):
    server = x509(start, pki, 'server', '--tls-verify-peer')
    h = handle(tls_certificates=pki['client'])
    connect(h, server)
    assert h.get_tls_negotiated() == 1 and h.get_structured_replies_negotiated() == 1
    check_data(h)
    h.shutdown(0)
    assert h.aio_is_closed()


def test_data_through_a_pre_shared_key(start, handle, keys):
    h = handle(tls_psk_file=keys[0], tls_username='alice')
    connect(h, psk(start, keys))
    assert h.get_tls_negotiated() == 1
    check_data(h)
    h.shutdown(0)


@pytest.mark.parametrize('priority', [
    'NORMAL:-VERS-ALL:+VERS-TLS1.2', 'NORMAL:-VERS-ALL:+VERS-TLS1.3',
    'NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305', 'NORMAL:-CIPHER-ALL:+AES-128-GCM'])
def test_data_with_each_priority(start, handle, pki, priority):
    h = handle(tls_certificates=pki['ca-only'], tls_priority=priority)
    connect(h, x509(start, pki))
    check_data(h)


def test_a_key_that_works_by_uri(start, handle, keys, pki):
    server = psk(start, keys)
    h = handle(tls=DISABLE, uri_allow_local_file=True)
    h.connect_uri(f'nbds+unix://bob@/?socket={server.socket}&tls-psk-file={keys[0]}')
    assert h.get_tls_negotiated() == 1
    server = x509(start, pki)
    h = handle(tls=DISABLE, uri_allow_local_file=True)
    h.connect_uri(f'nbds://127.0.0.1:{server.port}/?tls-certificates={pki["ca-only"]}')
    assert h.get_tls_negotiated() == 1 and h.read(0, 512) == bytes(512)


def test_the_name_can_be_set_or_not_be_verified(start, handle, pki):
    server = x509(start, pki, 'named')
    for settings in ({'tls_hostname': 'disk.example'}, {'tls_hostname': '192.0.2.7'},
                     {'tls_verify_peer': False}):
        h = handle(tls_certificates=pki['ca-only'], **settings)
        connect(h, server)
        assert h.get_tls_negotiated() == 1, settings


@pytest.mark.parametrize('kind', ['x509', 'psk'])
def test_qemu_nbd(start, handle, image, pki, keys, kind):
    at = {'x509': f'tls-creds-x509,dir={pki["server"]},verify-peer=no',
          'psk': f'tls-creds-psk,dir={keys[0].parent}'}[kind]
    server = start(QemuNbd, image, tcp=True, options=[
        '--object', f'{at},id=t,endpoint=server', '--tls-creds', 't'])
    h = handle(**{'x509': {'tls_certificates': pki['ca-only']},
                  'psk': {'tls_psk_file': keys[0], 'tls_username': 'alice'}}[kind])
    connect(h, server)
    assert h.get_tls_negotiated() == 1
    assert h.read(0, SIZE) == CONTENT
    h.shutdown(0)


def test_nbd_server(start, handle, image, pki):
    server = start(NbdServer, {'disk': {'exportname': image}}, {
        'certfile': pki['server'] / 'server-cert.pem',
        'keyfile': pki['server'] / 'server-key.pem',
        'cacertfile': pki['server'] / 'ca-cert.pem', 'force_tls': 'true'}, tcp=True)
    h = handle(tls_certificates=pki['client'], export_name='disk')
    connect(h, server)
    assert h.get_tls_negotiated() == 1
    assert h.read(0, 1 << 20) == CONTENT[:1 << 20]


def test_a_server_with_tls_is_used_with_it_where_allowed(start, handle, keys):
    h = handle(tls=ALLOW, tls_psk_file=keys[0], tls_username='alice')
    connect(h, psk(start, keys, tls='on'))
    assert h.get_tls_negotiated() == 1


# By hand ----------------------------------------------------------------------------------

def by_hand(handle, keys):
    return handle(tls=DISABLE, opt_mode=True, tls_psk_file=keys[0], tls_username='alice')


def test_upgrade_by_hand_drops_what_was_agreed_before(start, handle, keys):
    h = by_hand(handle, keys)
    connect(h, psk(start, keys, tls='on'))
    h.opt_info()
    assert h.get_structured_replies_negotiated() == 1 and h.get_size() == SIZE
    assert h.opt_starttls() == 1
    assert h.aio_is_negotiating() and h.get_tls_negotiated() == 1
    assert h.get_structured_replies_negotiated() == 0
    with pytest.raises(NbdError):
        h.get_size()
    with pytest.raises(NbdError) as e:
        h.opt_starttls()
    assert e.value.errno == errno.EINVAL and h.aio_is_negotiating()
    assert h.opt_structured_reply() == 1
    h.opt_go()
    check_data(h)


def test_upgrade_by_hand_without_waiting(start, handle, keys):
    h, answers = by_hand(handle, keys), []
    connect(h, psk(start, keys))
    assert h.get_tls_negotiated() == 0

    def done(error):
        answers.append(error[0])
        return 1
    callback = completion(done)
    h.aio_opt_starttls(callback)
    h.poll_until(lambda: answers)
    assert answers == [0] and h.get_tls_negotiated() == 1
    h.opt_go()
    assert h.read(0, 512) == bytes(512)


# What fails, and why ----------------------------------------------------------------------

@pytest.mark.parametrize('server, client, to, number, words', [
    ('expired', 'ca-only', 'localhost', errno.EKEYEXPIRED, ['expired', '2022-01-01']),
    ('early', 'ca-only', 'localhost', errno.EKEYREJECTED, ['not valid before 2090-01-01']),
    ('server', 'stranger', 'localhost', errno.EKEYREJECTED, ['unknown CA', 'stranger']),
    ('named', 'ca-only', 'localhost', errno.EKEYREJECTED,
     ['is for disk.example, 192.0.2.7, not for localhost']),
    ('named', 'ca-only', '127.0.0.1', errno.EKEYREJECTED, ['not for 127.0.0.1']),
    ('server', 'crl', 'localhost', errno.EKEYREVOKED, ['revoked', 'crl'])])
def test_a_server_that_is_not_trusted_is_told_why(start, handle, pki, server, client, to,
                                                  number, words):
    e = refusal(handle(tls_certificates=pki[client]), x509(start, pki, server), to)
    assert e.errno == number
    assert e.text.startswith('nbd_connect_tcp: handshake: TLS: ')
    assert all(w in e.text for w in words), e.text


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_a_client_certificate_that_is_missing(start, handle, pki, version):
    server = x509(start, pki, 'server', '--tls-verify-peer')
    h = handle(tls_certificates=pki['ca-only'],
               tls_priority=f'NORMAL:-VERS-ALL:+VERS-TLS{version}')
    e = refusal(h, server)
    assert e.errno == errno.EKEYREJECTED
    assert 'it asked for a client certificate, and there is none in' in e.text
    assert str(pki['ca-only']) in e.text


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_a_client_certificate_of_an_unknown_ca(start, handle, pki, host, version):
    directory = host.path / 'client'
    shutil.copytree(pki['stranger'], directory)
    shutil.copy(pki['ca-only'] / 'ca-cert.pem', directory)
    h = handle(tls_certificates=directory,
               tls_priority=f'NORMAL:-VERS-ALL:+VERS-TLS{version}')
    e = refusal(h, x509(start, pki, 'server', '--tls-verify-peer'))
    assert e.errno == errno.EKEYREJECTED
    assert f'client certificate of a CA that did not make the one in {directory}' in e.text


@pytest.mark.parametrize('file, user, words', [
    (1, 'alice', ["refused the pre-shared key of user 'alice'"]),
    (0, 'carol', ["has no key for user 'carol'"])])
def test_a_pre_shared_key_that_is_not_the_servers(start, handle, keys, file, user, words):
    h = handle(tls_psk_file=keys[file], tls_username=user)
    e = refusal(h, psk(start, keys))
    assert all(w in e.text for w in words), e.text


def test_a_user_whom_the_server_does_not_know(start, handle, keys, host):
    file = host.path / 'more.psk'
    file.write_text('dave:00112233445566778899aabbccddeeff\n')
    file.chmod(0o600)
    e = refusal(handle(tls_psk_file=file, tls_username='dave'), psk(start, keys))
    assert "pre-shared key of user 'dave'" in e.text


@pytest.mark.parametrize('text, words', [
    (None, 'No such file'), ('alice:\n', 'pairs of hexadecimal'),
    ('alice:abc\n', 'pairs of hexadecimal'), ('alice:zz\n', 'pairs of hexadecimal'),
    ('', 'no key for user')])
def test_a_key_file_that_cannot_be_used(start, handle, keys, host, text, words):
    file = host.path / 'file.psk'
    if text is not None:
        file.write_text(text)
        file.chmod(0o600)
    e = refusal(handle(tls_psk_file=file, tls_username='alice'), psk(start, keys))
    assert words in e.text and 'file.psk' in e.text


@pytest.mark.parametrize('mode', [0o644, 0o604, 0o602])
def test_a_key_that_everybody_may_have_is_refused(start, handle, keys, pki, host, mode):
    file, directory = host.path / 'open.psk', host.path / 'open'
    shutil.copy(keys[0], file)
    shutil.copytree(pki['client'], directory)
    for path, setting, server in (
            (file, {'tls_psk_file': file, 'tls_username': 'alice'}, psk(start, keys)),
            (directory / 'client-key.pem', {'tls_certificates': directory},
             x509(start, pki))):
        path.chmod(mode)
        e = refusal(handle(**setting), server)
        assert e.errno == errno.EACCES and f"run 'chmod 600 {path}'" in e.text
        path.chmod(0o640)
        h = handle(**setting)
        connect(h, server)
        assert h.get_tls_negotiated() == 1


@pytest.mark.parametrize('name', ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'])
@pytest.mark.parametrize('how', ['gone', 'cut', 'empty'])
def test_certificate_files_that_are_cut_short(start, handle, pki, host, name, how):
    directory = host.path / 'client'
    shutil.copytree(pki['client'], directory)
    file = directory / name
    file.write_bytes(file.read_bytes()[:{'cut': 150}.get(how, 0)])
    if how == 'gone':
        file.unlink()
    server = x509(start, pki, 'server', '--tls-verify-peer')
    e = refusal(handle(tls_certificates=directory), server)
    if how != 'gone' or name == 'client-key.pem':
        assert str(directory) in e.text and 'client' in e.text


def test_a_directory_without_certificates(start, handle, pki, host):
    e = refusal(handle(tls_certificates=host.path), x509(start, pki))
    assert e.errno == errno.ENOENT and str(host.path) in e.text


def test_a_priority_that_is_nonsense(start, handle, pki):
    e = refusal(handle(tls_certificates=pki['ca-only'], tls_priority='NONSENSE'),
                x509(start, pki))
    assert "priority 'NONSENSE'" in e.text


def test_a_server_without_tls(start, handle):
    server = start(Nbdkit, ['memory', str(SIZE)])
    e = refusal(handle(), server)
    assert e.errno == errno.ENOTSUP
    assert "server refused TLS, but handle TLS setting is 'require' (2)" in e.text
    h = handle(tls=ALLOW)
    connect(h, server)
    assert h.get_tls_negotiated() == 0 and h.read(0, 512) == bytes(512)


def test_a_server_that_wants_tls(start, handle, keys):
    e = refusal(handle(tls=DISABLE), psk(start, keys))
    assert e.errno == errno.ENOTSUP and 'requires TLS' in e.text


def test_a_server_that_is_killed_is_noticed(start, handle, keys):
    h = handle(tls_psk_file=keys[0], tls_username='alice')
    server = psk(start, keys)
    connect(h, server)
    server.kill()
    with pytest.raises(NbdError):
        h.read(0, 512)
    assert h.aio_is_dead() or h.aio_is_closed()


# Where keys are looked for ----------------------------------------------------------------

NOBODY = 65534


@pytest.fixture
def nobody(host):
    """nobody(URI) is what nbdinfo says to a user without rights whose home is nobody.home."""
    if os.geteuid() != 0:
        pytest.skip('only root can become somebody else')
    home = host.path / 'home'
    home.mkdir()
    host.path.chmod(0o755)
    shutil.copy(BUILD / 'libnbd.so.0', host.path)

    def run(uri):
        return subprocess.run(
            ['setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups',
             'nbdinfo', '--size', uri], capture_output=True, text=True,
            env={**os.environ, 'HOME': str(home), 'LD_LIBRARY_PATH': str(host.path)})
    run.home = home
    return run


@pytest.mark.parametrize('where', ['.pki/libnbd', '.config/pki/libnbd'])
def test_certificates_of_a_user_are_found_in_his_home(start, nobody, pki, where):
    server = x509(start, pki, 'server', '--tls-verify-peer')
    directory = nobody.home / where
    shutil.copytree(pki['client'], directory)
    for file in directory.iterdir():
        os.chown(file, NOBODY, NOBODY)
    assert nobody(f'nbds://localhost:{server.port}').stdout == f'{SIZE}\n'


def test_the_first_directory_of_a_home_is_the_one(start, nobody, pki):
    server = x509(start, pki)
    shutil.copytree(pki['stranger'], nobody.home / '.pki/libnbd')
    shutil.copytree(pki['client'], nobody.home / '.config/pki/libnbd')
    for file in nobody.home.glob('.*/**/*.pem'):
        os.chown(file, NOBODY, NOBODY)
    r = nobody(f'nbds://localhost:{server.port}')
    assert r.returncode == 1
    assert f'unknown CA, none of those in {nobody.home}/.pki/libnbd' in r.stderr


def test_without_certificates_those_of_the_system_hold(start, nobody, pki):
    server = x509(start, pki)
    r = nobody(f'nbds://localhost:{server.port}')
    assert r.returncode == 1 and "none of those in the system's trust store" in r.stderr


# Servers that are not what they seem ------------------------------------------------------

OPTION_ACK = struct.pack('>QIII', 0x3e889045565a9, 5, 1, 0)


@pytest.fixture
def scripted():
    """scripted(function) is the port of a server that agrees to NBD_OPT_STARTTLS and leaves
    the rest to function(socket)."""
    threads = []

    def make(rest):
        listener = socket.create_server(('127.0.0.1', 0))

        def serve():
            with listener, listener.accept()[0] as s:
                s.sendall(b'NBDMAGICIHAVEOPT' + struct.pack('>H', 3))
                assert len(s.recv(20, socket.MSG_WAITALL)) == 20
                with contextlib.suppress(OSError):
                    rest(s)
        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return listener.getsockname()[1]
    yield make
    for t in threads:
        t.join(10)
        assert not t.is_alive()


def scripted_refusal(h, port):
    with pytest.raises(NbdError) as e:
        h.connect_tcp('localhost', str(port))
    assert h.aio_is_dead()
    return e.value


def test_bytes_in_the_clear_behind_the_consent_are_an_error(scripted, handle, pki):
    port = scripted(lambda s: (s.sendall(OPTION_ACK + b'injected'), s.recv(1)))
    e = scripted_refusal(handle(tls_certificates=pki['ca-only']), port)
    assert e.errno == errno.EPROTO and '8 bytes in the clear' in e.text


@pytest.mark.parametrize('rubbish', [b'', b'NBD', OPTION_ACK * 3, b'\x16\x03\x03\xff\xff',
                                     bytes(70000), b'\x15\x03\x03\x00\x02\x02\x28'])
def test_rubbish_in_place_of_tls(scripted, handle, pki, rubbish):
    def answer(s):
        s.sendall(OPTION_ACK)
        s.recv(65536)           # the client's hello
        s.sendall(rubbish)
    e = scripted_refusal(handle(tls_certificates=pki['ca-only']), scripted(answer))
    assert 'handshake: TLS: ' in e.text


def test_versions_that_do_not_match(scripted, handle, pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki['server'] / 'server-cert.pem', pki['server'] / 'server-key.pem')
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def answer(s):
        s.sendall(OPTION_ACK)
        context.wrap_socket(s, server_side=True)
    h = handle(tls_certificates=pki['ca-only'], tls_priority='NORMAL:-VERS-ALL:+VERS-TLS1.3')
    e = scripted_refusal(h, scripted(answer))
    assert e.errno == errno.ENOTSUP and 'version' in e.text


def test_encryption_alone_where_nothing_is_verified(scripted, handle):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers('AECDH-AES128-SHA:@SECLEVEL=0')     # anonymous
    ciphers = []

    def answer(s):
        s.sendall(OPTION_ACK)
        with context.wrap_socket(s, server_side=True) as t:
            ciphers.append(t.cipher()[0])
    e = scripted_refusal(handle(tls_verify_peer=False), scripted(answer))
    assert ciphers == ['AECDH-AES128-SHA'] and 'handshake: TLS' not in e.text, e.text


def test_a_handshake_that_comes_byte_by_byte(scripted, handle, pki):
    """OpenSSL on the other side, with its tickets behind the handshake, one byte a send."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki['server'] / 'server-cert.pem', pki['server'] / 'server-key.pem')
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    asked = bytearray()

    def step(s, act):
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                drip(s)
                incoming.write(s.recv(65536))

    def drip(s):
        for byte in outgoing.read():
            s.sendall(bytes([byte]))

    def answer(s):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(OPTION_ACK)
        step(s, tls.do_handshake)
        drip(s)
        asked.extend(step(s, lambda: tls.read(16)))
    e = scripted_refusal(handle(tls_certificates=pki['ca-only']), scripted(answer))
    assert 'disconnected' in e.text or 'reset' in e.text
    assert asked.startswith(b'IHAVEOPT')
