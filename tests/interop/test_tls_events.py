"""What a server may do on the level of TLS while data flows, and what it must not."""
import random

import pytest

from tests.harness.nbd_ctypes import Handle, NbdError, buffer, completion
from tests.harness.pki import make_keys
from tests.harness.servers import Nbdkit, TlsFront

SIZE = 4 << 20
REQUIRE = 2
PSK = ':+ECDHE-PSK:+DHE-PSK:+PSK'
TLS13, TLS12 = ('NORMAL:-VERS-ALL:+VERS-TLS1.3', 'NORMAL:-VERS-ALL:+VERS-TLS1.2')
PRIORITIES = {
    **{f'1.3 {c}': f'{TLS13}:-CIPHER-ALL:+{c}{PSK}' for c in (
        'AES-128-GCM', 'CHACHA20-POLY1305', 'AES-128-CCM')},
    **{f'1.2 {c}': f'{TLS12}:-CIPHER-ALL:+{c}{PSK}' for c in (
        'AES-128-GCM', 'AES-256-GCM', 'CHACHA20-POLY1305', 'AES-128-CBC')},
}


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp('psk'))[0]


@pytest.fixture
def connected(host, keys):
    """connected(PRIORITY, events...) is a handle on 4 MiB of memory behind a TlsFront."""
    made = []

    def make(priority, *events):
        made.append(Nbdkit(host, ['memory', str(SIZE)]).start())
        made.append(TlsFront(host, made[-1], f'psk:{keys}', PRIORITIES[priority],
                             events).start())
        h = Handle()
        made.append(h)
        h.set_tls(REQUIRE)
        h.set_tls_psk_file(str(keys))
        h.set_tls_username('alice')
        h.connect_unix(made[-2].socket)
        assert h.get_tls_negotiated() == 1
        h.front = made[-2]
        return h
    yield make
    for m in reversed(made):
        m.close()


def write_and_read_back(h, seed=11):
    """All of it, by requests of many sizes, 32 of them at a time."""
    rng = random.Random(seed)
    model, ranges, at = bytearray(SIZE), [], 0
    while at < SIZE:
        count = min(SIZE - at, rng.choice((1, 512, 4096, 4096, 16384, 40000, 262144)))
        ranges.append((at, count))
        at += count
    rng.shuffle(ranges)
    for at, count in ranges:
        model[at:at + count] = rng.randbytes(count)

    def run(issue):
        left, flying, errors = list(ranges), [], []

        def done(error):
            errors.append(error[0])
            return 1
        total = len(left)
        while len(errors) < total:
            while left and len(flying) - len(errors) < 32:
                at, count = left.pop()
                flying.append(completion(done))
                issue(at, count, flying[-1])
            h.poll(1000)
        assert not any(errors)
    run(lambda at, count, cb: h.aio_pwrite(buffer(model[at:at + count]), count, at, cb, 0))
    got = {}

    def read(at, count, cb):
        got[at] = buffer(count)
        h.aio_pread(got[at], count, at, cb, 0)
    run(read)
    for at, count in ranges:
        assert got[at].raw[:count] == model[at:at + count]
    # And one at a time.
    for at, count in ranges[:20]:
        assert h.read(at, count) == model[at:at + count]


@pytest.mark.parametrize('priority', PRIORITIES)
def test_data_with_each_cipher(connected, priority):
    h = connected(priority)
    write_and_read_back(h)
    h.shutdown(0)
    assert h.aio_is_closed()


@pytest.mark.parametrize('events', [
    ['=20:keyupdate', '=40:keyupdate'], ['=20:keyupdate-both'], ['=1:keyupdate-both'],
    ['3:ticket'], ['1:ticket'],
    ['7:ticket', '=14:keyupdate', '=21:keyupdate-both', '=41:keyupdate-both'],
], ids=' '.join)
@pytest.mark.parametrize('priority', ['1.3 AES-128-GCM', '1.3 CHACHA20-POLY1305',
                                      '1.3 AES-128-CCM'])
def test_keys_that_change_and_tickets_disturb_nothing(connected, priority, events):
    h = connected(priority, *events)
    write_and_read_back(h)
    h.shutdown(0)


@pytest.mark.parametrize('events, answers', [
    (['=20:keyupdate'], 0), (['=20:keyupdate-both'], 1),
    (['=20:keyupdate-both', '=24:ticket', '=30:keyupdate-both'], 2)], ids=str)
@pytest.mark.parametrize('priority', ['1.3 AES-128-GCM', '1.3 CHACHA20-POLY1305',
                                      '1.3 AES-128-CCM'])
def test_a_key_update_that_wants_one_in_return_gets_it(connected, priority, events, answers):
    """RFC 8446, 4.6.3: before the next data."""
    h = connected(priority, *events)
    for i in range(40):
        h.read(0, 512)
    assert h.front.process.output.count('client changed its key\n') == answers
    write_and_read_back(h)
    h.shutdown(0)


@pytest.mark.parametrize('priority', ['1.2 AES-128-GCM', '1.2 CHACHA20-POLY1305',
                                      '1.2 AES-128-CBC'])
@pytest.mark.parametrize('events', [['4:warning'], ['3:rehandshake'], ['=7:rehandshake']],
                         ids=' '.join)
def test_warnings_and_another_handshake_are_declined(connected, priority, events):
    h = connected(priority, *events)
    write_and_read_back(h)
    h.shutdown(0)


@pytest.mark.parametrize('priority', ['1.3 AES-128-GCM', '1.2 AES-128-GCM', '1.3 AES-128-CCM'])
@pytest.mark.parametrize('event, words', [
    ('fatal', 'server sent alert 80: Internal error'), ('garbage', 'TLS: '), ('half', ''),
    ('clear', 'TLS: '), ('end', ''), ('bye', '')])
def test_what_ends_a_connection_is_told_and_fails_what_is_in_flight(connected, priority, event,
                                                                    words):
    # Data goes to the client some ten times until it is connected, then for each read.
    h = connected(priority, f'=20:{event}')
    data, seen = [buffer(b'\xaa' * 65536) for _ in range(16)], []

    def done(error):
        seen.append(error[0])
        return 1
    with pytest.raises(NbdError) as e:
        for i in range(200):
            h.read(0, 512)
            if i == 3:
                for buf in data:
                    h.aio_pread(buf, 65536, 0, completion(done), 0)
    # It may come together with an answer; then the handle is dead before the next call.
    assert words in e.value.text or ': DEAD: ' in e.value.text
    with pytest.raises(NbdError) as e:
        h.read(0, 512)
    assert h.aio_is_dead() or h.aio_is_closed()
    assert len(seen) == 16
    # No stale memory: what came, or zeroes.
    assert all(buf.raw[:65536] == bytes(65536) for buf in data)
