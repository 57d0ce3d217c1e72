"""nbdd_take_tls_socket: another goes on where the library stopped."""
import ctypes as c
import errno
import shutil
import struct
import socket
import time

import pytest

from tests.harness import nbd_proto as p
from tests.harness.nbd_ctypes import Handle, NbdError, TlsInfo, TlsState, buffer
from tests.harness.nbd_proto import Cmd
from tests.harness.pki import make_certificates
from tests.harness.servers import Nbdkit

SIZE = 1 << 20
REQUIRE = 2
# enum nbdd_tls_cipher: gnutls_cipher_algorithm_t, and its name
CIPHERS = {1: (10, 'AES-128-GCM'), 2: (11, 'AES-256-GCM'), 3: (23, 'CHACHA20-POLY1305')}


class Datum(c.Structure):
    _fields_ = [('data', c.c_void_p), ('size', c.c_uint)]


class Records:
    """One direction of a connection, as RFC 8446 and RFC 5288, 7905 have it."""

    def __init__(self, state, direction):
        self.gnutls, self.version, self.cipher = c.CDLL('libgnutls.so.30'), state.version, \
            state.cipher
        self.iv, self.sequence = bytes(direction.iv)[:state.iv_len], direction.sequence
        self.key = c.create_string_buffer(bytes(direction.key)[:state.key_len], state.key_len)
        self.aead = c.c_void_p()
        assert self.gnutls.gnutls_aead_cipher_init(
            c.byref(self.aead), CIPHERS[self.cipher][0],
            c.byref(Datum(c.addressof(self.key), state.key_len))) == 0

    def nonce(self, explicit):
        number = struct.pack('>Q', self.sequence)
        if explicit is not None:
            return self.iv + explicit
        return bytes(a ^ b for a, b in zip(self.iv, bytes(4) + number))

    def run(self, what, nonce, associated, data, out_size):
        out, size = c.create_string_buffer(out_size), c.c_size_t(out_size)
        f = getattr(self.gnutls, f'gnutls_aead_cipher_{what}')
        f.argtypes = [c.c_void_p] + [c.c_char_p, c.c_size_t] * 2 + \
            [c.c_size_t, c.c_char_p, c.c_size_t, c.c_void_p, c.c_void_p]
        r = f(self.aead, nonce, len(nonce), associated, len(associated), 16, data, len(data),
              out, c.byref(size))
        assert r == 0, r
        self.sequence += 1
        return out.raw[:size.value]

    @property
    def explicit(self):
        return self.version == 0x303 and len(self.iv) == 4

    def seal(self, data):
        if self.version == 0x304:
            head = struct.pack('>BHH', 23, 0x303, len(data) + 17)
            return head + self.run('encrypt', self.nonce(None), head, data + b'\x17',
                                   len(data) + 17)
        explicit = struct.pack('>Q', self.sequence) if self.explicit else None
        seen = struct.pack('>QBHH', self.sequence, 23, 0x303, len(data))
        body = (explicit or b'') + self.run('encrypt', self.nonce(explicit), seen, data,
                                            len(data) + 16)
        return struct.pack('>BHH', 23, 0x303, len(body)) + body

    def open(self, head, body):
        if self.version == 0x304:
            return self.run('decrypt', self.nonce(None), head, body, len(body))[:-1]
        explicit, body = (body[:8], body[8:]) if self.explicit else (None, body)
        seen = struct.pack('>QBHH', self.sequence, 23, 0x303, len(body) - 16)
        return self.run('decrypt', self.nonce(explicit), seen, body, len(body))


@pytest.fixture(scope='module')
def pki(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp('pki'))


@pytest.fixture
def server(host, pki):
    with Nbdkit(host, ['pattern', str(SIZE)],
                options=['--tls=require', f'--tls-certificates={pki["server"]}']) as s:
        yield s


@pytest.fixture
def connect(server, pki):
    handles = []

    def make(priority='NORMAL', **settings):
        h = Handle()
        handles.append(h)
        h.set_tls(REQUIRE)
        h.set_tls_certificates(str(pki['ca-only']))
        h.set_tls_hostname('localhost')
        h.set_tls_priority(priority)
        for name, value in ({'request_structured_replies': False,
                             'request_extended_headers': False} | settings).items():
            h.call('set_' + name, value)
        h.connect_unix(server.socket)
        return h
    yield make
    for h in handles:
        h.close()


def refusal(h, name='take_tls_socket', at=TlsState):
    with pytest.raises(NbdError) as e:
        h.call(name, c.byref(at()))
    return e.value


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('cipher', CIPHERS)
@pytest.mark.parametrize('requests', [0, 3])
def test_the_connection_goes_on_with_the_state_taken(connect, version, cipher, requests):
    name = CIPHERS[cipher][1]
    h, state, info = connect(f'NORMAL:-VERS-ALL:+VERS-TLS{version}:-CIPHER-ALL:+{name}'), \
        TlsState(), TlsInfo()
    for i in range(requests):
        h.read(0, 512)
    h.get_tls_info(c.byref(info))
    with socket.socket(fileno=h.take_tls_socket(c.byref(state))) as s:
        s.settimeout(10)
        assert h.aio_is_closed()
        assert (state.version, state.cipher) == ({'1.2': 0x303, '1.3': 0x304}[version], cipher)
        assert (info.version, info.cipher.decode()) == (state.version, name)
        send, receive = Records(state, state.send), Records(state, state.receive)
        s.sendall(send.seal(p.request(Cmd.READ, 99, 0x1000, 16)))
        got = b''
        while len(got) < 32:
            head = s.recv(5, socket.MSG_WAITALL)
            got += receive.open(head, s.recv(struct.unpack('>H', head[3:])[0],
                                             socket.MSG_WAITALL))
        assert got == p.simple_reply(99, 0, struct.pack('>QQ', 0x1000, 0x1008))


def test_a_cipher_that_nobody_else_knows_is_named(connect):
    h = connect('NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-CCM')
    e = refusal(h)
    assert e.errno == errno.ENOTSUP and 'TLS1.3 with AES-128-CCM' in e.text
    assert h.read(0, 8) == bytes(8), 'the connection is still there'


def test_requests_in_flight_and_structured_replies_forbid_it(connect):
    h = connect()
    data = buffer(512)
    h.aio_pread(data, 512, 0, None, 0)
    assert refusal(h).errno == errno.EBUSY
    assert refusal(connect(request_structured_replies=True)).errno == errno.ENOTSUP


@pytest.mark.parametrize('kind', ['x509', 'psk'])
def test_credentials_are_used_from_memory_when_their_files_are_gone(host, pki, kind):
    directory, file = host.path / 'pki', host.path / 'keys.psk'
    shutil.copytree(pki['client'], directory)
    file.write_text('other:1234\nalice:00112233445566778899aabbccddeeff\n')
    file.chmod(0o600)
    shutil.copy(file, host.path / 'server.psk')
    options = {'x509': [f'--tls-certificates={pki["server"]}', '--tls-verify-peer'],
               'psk': [f'--tls-psk={host.path}/server.psk']}[kind]
    with Nbdkit(host, ['memory', str(SIZE)], tcp=True,
                options=['--tls=require', *options]) as s, Handle() as reader, Handle() as h:
        if kind == 'psk':
            reader.set_tls_psk_file(str(file))
            reader.set_tls_username('alice')
        else:
            reader.set_tls_certificates(str(directory))
        credentials = reader.read_tls_credentials()
        shutil.rmtree(directory)
        file.unlink()
        h.set_tls(REQUIRE)
        h.set_tls_credentials(credentials)
        h.connect_tcp('localhost', str(s.port))
        h.lib.free_tls_credentials(credentials)
        assert h.read(0, 512) == bytes(512)


def test_without_a_directory_the_systems_cas_are_read(host, pki):
    with Nbdkit(host, ['memory', str(SIZE)], tcp=True, options=[
            '--tls=require', f'--tls-certificates={pki["server"]}']) as s, Handle() as h:
        try:
            credentials = h.read_tls_credentials()
        except NbdError as e:
            assert 'has no file of CAs' in e.text
            return
        h.set_tls(REQUIRE)
        h.set_tls_credentials(credentials)
        with pytest.raises(NbdError) as e:
            h.connect_tcp('localhost', str(s.port))
        h.lib.free_tls_credentials(credentials)
        assert "unknown CA, none of those in the system's trust store" in e.value.text


@pytest.mark.parametrize('file, words', [
    ('ca-cert.pem', 'ca-cert.pem cannot be used'), ('client-cert.pem', 'client-cert.pem'),
    ('client-key.pem', 'client-key.pem')])
def test_credentials_that_cannot_be_used_are_not_read(host, pki, file, words):
    directory = host.path / 'pki'
    shutil.copytree(pki['client'], directory)
    (directory / file).write_bytes((directory / file).read_bytes()[:150])
    with Handle() as h:
        h.set_tls_certificates(str(directory))
        with pytest.raises(NbdError) as e:
            h.read_tls_credentials()
        assert words in e.value.text and e.value.text.startswith('nbdd_read_tls_credentials: ')


def test_a_plain_connection_has_no_state(host):
    with Nbdkit(host, ['memory', str(SIZE)]) as s, Handle() as h:
        h.set_request_structured_replies(False)
        h.connect_unix(s.socket)
        assert 'TLS is not active' in refusal(h).text
        e = refusal(h, 'get_tls_info', TlsInfo)
        assert e.errno == errno.EINVAL and 'TLS is not active' in e.text


def test_a_server_that_has_gone(connect, server):
    h = connect()
    server.kill()
    assert refusal(h).errno in (errno.ENOTCONN, errno.ECONNRESET)


def test_names_and_dates_of_the_certificates_are_told(host, pki):
    info = TlsInfo()
    with Nbdkit(host, ['memory', str(SIZE)], tcp=True, options=[
            '--tls=require', f'--tls-certificates={pki["server"]}',
            '--tls-verify-peer']) as s, Handle() as h:
        h.set_tls(REQUIRE)
        h.set_tls_certificates(str(pki['client']))
        h.connect_tcp('localhost', str(s.port))
        h.get_tls_info(c.byref(info))
    assert info.peer == b'localhost, 127.0.0.1'
    for expires in (info.peer_expires, info.own_expires):
        assert 99 < (expires - time.time()) / 86400 < 101
