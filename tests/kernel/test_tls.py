"""Encrypted devices: the kernel's TLS carries the data, and reconnects as any device does."""
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import NO_TLS_RX
from tests.harness.servers import NbdServer, QemuNbd
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.cost import wake_ups
from tests.kernel.disk import DISK_MB, mounted
from tests.kernel.tls_guest import Misbehaving, install, nbds, qemu_tls, tls_server

pytestmark = pytest.mark.guest
KILLS = 4                       # of each of the six servers
ENDS_MAX = 4                    # KTLS_ENDS_MAX of daemon/ktls_trust.h
CIPHERS = ('AES-128-GCM', 'AES-256-GCM', 'CHACHA20-POLY1305')


@pytest.fixture(scope='module')
def at(guest):
    return install(guest)


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


def attach(daemon, server, at, name, client='client', kernel_tls='require', **keys):
    return daemon.attach(nbds(server), name=name, tls_certificates=f'{at}/pki/{client}',
                         kernel_tls=kernel_tls, **keys)


def outage(daemon, name, number, act):
    """ACT is the cause of the NUMBER-th outage."""
    act()
    wait_until(lambda: daemon.status(name)['outages']['count'] >= number, 10, 'the outage')


def own_bytes(guest, daemon):
    """What nbdd has read and written itself, by read(2) and write(2)."""
    io = dict(line.split(': ') for line in guest.read(f'/proc/{daemon.pid}/io').splitlines())
    return int(io['rchar']) + int(io['wchar'])


def survive(guest, daemon, at, version, cipher, kills):
    with tls_server(guest, at, 'survives', options=['--tls-verify-peer']) as server:
        device = attach(daemon, server, at, 'survives', tls_priority='NORMAL:-VERS-ALL:'
                        f'+VERS-TLS{version}:-CIPHER-ALL:+{cipher}')
        tls = daemon.status('survives')['tls']
        assert (tls['version'], tls['cipher']) == (f'TLS{version}', cipher)
        assert tls['in_kernel'] and tls['why_not_in_kernel'] is None
        with mounted(guest, device) as mount:
            w = Workload(guest, f'{mount}/file', size='2M', jobs=2, direct=True,
                         rests=True).start()
            for number in range(1, kills + 1):
                outage(daemon, 'survives', number, server.restart)
                w.wait_flowing(10)
            w.finish()
            print(f'TLS {version}, {cipher}, {kills} kills: {w.ops()} operations, 0 errors')
        assert daemon.status('survives')['outages']['count'] == kills
        daemon.detach('survives')
        assert 'I/O error' not in guest.dmesg()


@pytest.mark.parametrize('version', ['1.3', '1.2'])
@pytest.mark.parametrize('cipher', CIPHERS)
def test_a_filesystem_over_tls_in_the_kernel_survives_its_server(guest, daemon, at, version,
                                                                 cipher):
    survive(guest, daemon, at, version, cipher, KILLS)


@pytest.mark.soak
@pytest.mark.parametrize('version', ['1.3', '1.2'])
@pytest.mark.parametrize('cipher', CIPHERS)
def test_20_kills_of_the_server_below_tls_in_the_kernel(guest, daemon, at, version, cipher):
    survive(guest, daemon, at, version, cipher, 20)


def test_no_process_of_nbdd_touches_the_data(guest, daemon, at):
    with tls_server(guest, at, 'alone') as server:
        device = attach(daemon, server, at, 'alone')
        tls = daemon.status('alone')['tls']
        assert (tls['version'], tls['cipher']) == ('TLS1.3', 'CHACHA20-POLY1305'), 'by default'
        assert tls['certificate']['names'] == 'localhost, 127.0.0.1'
        # nbdctl asks the server itself, by what the daemon tells.
        assert daemon.status('alone')['keys'] == {'tls-certificates': f'{at}/pki/client'}
        assert 'base:allocation' in daemon.ctl('map', 'alone').out
        assert 98 <= tls['certificate']['days_left'] <= 100
        assert tls['own_certificate'] is None, 'nobody asked for it'
        wait_until(lambda: not guest.children(daemon.pid), what='no process but the daemon')
        before, woken = own_bytes(guest, daemon), wake_ups(guest, daemon.pid)
        for how in (f'if=/dev/urandom of={device} oflag=direct',
                    f'if={device} of=/dev/null iflag=direct'):
            guest.run(['dd', *how.split(), 'bs=32k', 'count=256'])
        assert not guest.children(daemon.pid)
        assert own_bytes(guest, daemon) - before < 64 << 10, 'of 16 MiB'
        assert wake_ups(guest, daemon.pid) - woken < 128, 'in 512 requests'
        daemon.detach('alone')


MISBEHAVIOUR = ['ticket', 'key-update', 'key-update-of-both', 'alert', 'warning', 'bye',
                'garbage', 'garbage-record', 'empty-record', 'giant-record', 'half',
                'half-header', 'plain']
CANNOT_FOLLOW = 'sent a late TLS session ticket, which the kernel'
AT_GO = ['ticket', 'key-update', 'alert', 'garbage', 'half-header']


def warned(daemon):
    return any("a relay could go on, but kernel-tls is 'require'" in w
               for w in daemon.status('broken')['warnings'])


def test_a_server_that_breaks_tls_off_costs_a_connection_and_nothing_else(guest, daemon, at):
    with Misbehaving(guest, at, 'broken') as server:
        device = attach(daemon, server, at, 'broken')
        w = Workload(guest, device, size='2M', jobs=2, direct=True).start()
        for number, word in enumerate(MISBEHAVIOUR, 1):
            outage(daemon, 'broken', number, lambda word=word: server.do(word))
            w.wait_flowing(10)
            assert server.done(), word
            if word == 'ticket':
                assert CANNOT_FOLLOW in daemon.status('broken')['outages']['last']['reason']
        # When the end meets a request on its way, a reset may hide what the kernel could not
        # read; then it takes one more.
        while not warned(daemon) and number < len(MISBEHAVIOUR) + 2 * ENDS_MAX:
            number += 1
            outage(daemon, 'broken', number, lambda: server.do('ticket'))
            w.wait_flowing(10)
        w.finish()
        assert warned(daemon)
        daemon.detach('broken')
    assert 'I/O error' not in guest.dmesg()


def test_a_server_that_breaks_tls_off_at_the_hand_over_is_asked_again(guest, daemon, at):
    with Misbehaving(guest, at, 'early') as server:
        device = attach(daemon, server, at, 'early', reconnect_delay_max='500ms')
        w = Workload(guest, device, size='2M', jobs=2, direct=True).start()
        for number, word in enumerate(AT_GO, 1):
            server.do(f'{word}-at-go')
            outage(daemon, 'early', number, lambda: daemon.ctl('reconnect', 'early'))
            w.wait_flowing(10)
            assert server.done(), word
        w.finish()
        assert daemon.status('early')['outages']['count'] == len(AT_GO), \
            'what was not verified was never shown to the kernel'
        daemon.detach('early')
    assert 'I/O error' not in guest.dmesg()


def test_a_server_that_the_kernels_tls_cannot_follow_gets_a_relay(guest, daemon, at):
    with Misbehaving(guest, at, 'follow') as server:
        device = attach(daemon, server, at, 'follow', kernel_tls='auto')
        assert daemon.status('follow')['tls']['in_kernel']
        w = Workload(guest, device, size='2M', jobs=2, direct=True).start()
        # Another key would end a relay's connection, too.
        whys = []
        for number in range(1, ENDS_MAX + 2):
            outage(daemon, 'follow', number, lambda: server.do('key-update'))
            w.wait_flowing(10)
            whys.append(daemon.status('follow')['outages']['last']['reason'])
        assert any('the server changed its TLS key' in why for why in whys)
        # A reset may hide what the kernel could not follow: that end does not count.
        ends = keys = number
        while daemon.wait_state('follow', 'connected')['tls']['in_kernel']:
            ends += 1
            assert ends <= keys + 2 * ENDS_MAX
            outage(daemon, 'follow', ends, lambda: server.do('ticket'))
            w.wait_flowing(10)
        assert ends >= keys + ENDS_MAX
        tls = daemon.wait_state('follow', 'connected')['tls']
        assert tls['why_not_in_kernel'].startswith(
            '4 connections ended within 10 min: the server ' + CANNOT_FOLLOW)
        # A relay reads a ticket over; whoever asks for it gets the kernel again.
        server.do('ticket')
        wait_until(server.done, 10)
        w.wait_flowing(10)
        assert daemon.status('follow')['outages']['count'] == ends
        # So it is with the next nbdd, also for a connection that it makes itself.
        daemon.crash()
        daemon.start()
        relay = daemon.wait_state('follow', 'connected')['connections'][0]['relay']
        outage(daemon, 'follow', ends + 1, lambda: guest.kill(relay, signal.SIGKILL))
        assert daemon.wait_state('follow', 'connected')['tls'] == tls
        w.wait_flowing(10)
        daemon.ctl('reconnect', 'follow')
        wait_until(lambda: (daemon.status('follow')['tls'] or {}).get('in_kernel'), 10)
        w.wait_flowing(10)
        w.finish()
        daemon.detach('follow')
    assert 'I/O error' not in guest.dmesg()


def test_a_first_read_that_fails_is_a_relays_turn(guest, daemon, at):
    with Misbehaving(guest, at, 'first') as server:
        server.do('key-update')          # at the first read
        device = attach(daemon, server, at, 'first', kernel_tls='auto')
        tls = daemon.status('first')['tls']
        assert server.done() and not tls['in_kernel']
        assert tls['why_not_in_kernel'] == \
            'a first read failed: TLS: server changed its key at once'
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=1M', 'count=4', 'iflag=direct'])
        daemon.detach('first')


def test_a_kernel_that_takes_one_direction_only_is_a_relays_turn(guest, at):
    with Daemon(guest, env={'LD_PRELOAD': NO_TLS_RX}) as daemon, \
            tls_server(guest, at, 'half') as server:
        r = daemon.ctl('attach', nbds(server), '--name=half', '--kernel-tls=require',
                       f'--tls-certificates={at}/pki/client', check=False)
        assert r.rc != 0 and 'the kernel cannot do TLS here (TLS_RX: Operation not supported), ' \
            "but kernel-tls is 'require'" in r.out
        device = attach(daemon, server, at, 'half', kernel_tls='auto')
        tls = daemon.status('half')['tls']
        assert not tls['in_kernel']
        assert tls['why_not_in_kernel'] == 'TLS_RX: Operation not supported'
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=1M', 'count=4', 'iflag=direct'])
        daemon.detach('half')


def nbd_server(guest, at):
    return NbdServer(guest, {'disk': {'exportname': '/tmp/interop'}}, {
        'certfile': f'{at}/pki/server/server-cert.pem',
        'keyfile': f'{at}/pki/server/server-key.pem',
        'cacertfile': f'{at}/pki/server/ca-cert.pem', 'force_tls': 'true'}, tcp=True)


def qemu_nbd(guest, at):
    return QemuNbd(guest, '/tmp/interop', tcp=True, options=qemu_tls(at))


@pytest.mark.parametrize('kind', [nbd_server, qemu_nbd])
def test_other_servers_work_with_the_kernels_tls(guest, daemon, at, kind):
    guest.run(['truncate', '-s', f'{DISK_MB}M', '/tmp/interop'])
    with kind(guest, at) as server:
        device = attach(daemon, server, at, 'interop')
        assert daemon.status('interop')['tls']['in_kernel']
        w = Workload(guest, device, size='2M', jobs=2, direct=True).start()
        server.kill(15)
        server.start()
        w.wait_flowing(15)
        w.finish()
        daemon.detach('interop')


def only(cipher):
    return f'NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+{cipher}'


def restart_with(server, cipher):
    """Also its process for each connection, which its kill leaves alone."""
    server.process.kill(signal.SIGKILL, group=True)
    server.restart(priority=only(cipher))


def test_no_reconnection_waits_for_modprobe(boot):
    """It may lie on the device that is away.  A cipher that the server has not used before was
    loaded when the device was attached; one that the kernel has not is not asked for again."""
    guest = boot()
    at = install(guest)
    asked = '/tmp/asked'
    guest.write('/tmp/modprobe', f'#!/bin/sh\necho "$@" >> {asked}\n')
    guest.run(['chmod', '755', '/tmp/modprobe'])
    guest.write('/proc/sys/kernel/modprobe', '/tmp/modprobe')
    module = next(line for line in (guest.path / 'modules').read_text().splitlines()
                  if 'chacha20poly1305' in line).strip()
    chacha = 'crypto-rfc7539(chacha20,poly1305)'
    guest.run(['busybox', 'rmmod', 'chacha20poly1305'])
    with Daemon(guest) as daemon, \
            Misbehaving(guest, at, 'disk', only('CHACHA20-POLY1305')) as server:
        attach(daemon, server, at, 'lacks', kernel_tls='auto')
        tls = daemon.status('lacks')['tls']
        assert not tls['in_kernel'] and tls['why_not_in_kernel'] == \
            'it does not take this cipher: TLS_TX: No such file or directory'
        assert chacha in guest.read(asked)
        guest.write(asked, '')
        outage(daemon, 'lacks', 1, lambda: restart_with(server, 'CHACHA20-POLY1305'))
        assert daemon.wait_state('lacks', 'connected')['tls'] == tls
        assert guest.read(asked) == ''
        daemon.detach('lacks')

        guest.run(['busybox', 'insmod', module])
        restart_with(server, 'AES-256-GCM')
        attach(daemon, server, at, 'other')
        assert daemon.status('other')['tls']['cipher'] == 'AES-256-GCM'
        assert chacha in guest.read(asked)
        guest.write(asked, '')
        outage(daemon, 'other', 1, lambda: restart_with(server, 'CHACHA20-POLY1305'))
        tls = daemon.wait_state('other', 'connected')['tls']
        assert tls['cipher'] == 'CHACHA20-POLY1305' and tls['in_kernel']
        assert guest.read(asked) == ''
        daemon.detach('other')
