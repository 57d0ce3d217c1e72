"""nbd-client beyond its options: what it prints, the daemon that it finds or starts, what
becomes of a device when the server goes."""
import re
import signal

import pytest

from tests.control.manager import error
from tests.front.front import OURS, SIZE, USUAL, Front
from tests.harness.paths import BUILD, NBDCTL
from tests.harness.pki import Authority
from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until

pytestmark = pytest.mark.guest

CONNECT = '127.0.0.1 /dev/nbd0 -N a'


@pytest.fixture(scope='module')
def front(guest):
    f = Front(guest)
    yield f
    f.close()


@pytest.fixture(autouse=True)
def nothing_left(front):
    yield
    front.clean(OURS)


def daemons(front):
    return [p for p, (name, _, _) in front.g.processes().items() if name == 'nbdd']


def nbdd(front):
    """The daemon; its children have its name, too, for a moment."""
    return min(daemons(front))


def test_the_first_call_starts_a_daemon_that_stays(front):
    assert daemons(front) == []
    assert front.run(OURS, f'{CONNECT} -systemd-mark')[0] == 0
    pid = nbdd(front)
    assert front.g.read(f'/proc/{pid}/cmdline').split('\0')[0] == '@nbdd'
    assert front.g.read(f'/proc/{pid}/stat').rsplit(')')[1].split()[3] == str(pid), 'no session'
    fds = [front.g.run(['readlink', f'/proc/{pid}/fd/{n}']).out.strip() for n in range(3)]
    assert fds == ['/dev/null', '/dev/kmsg', '/dev/kmsg']
    assert 'nbdd: nbd0: attached as /dev/nbd0' in front.g.dmesg()
    front.clean(OURS)
    assert front.run(OURS, CONNECT)[0] == 0 and nbdd(front) == pid, 'a second one'


def test_a_daemon_that_was_killed_is_started_again_and_devices_of_none_can_go(front):
    assert front.run(OURS, CONNECT)[0] == 0
    front.g.kill(nbdd(front), signal.SIGKILL)
    wait_until(lambda: not daemons(front))
    assert front.device(0) == USUAL
    assert front.run(OURS, '-d /dev/nbd0')[0] == 0
    assert front.state() == {} and not daemons(front)
    assert front.run(OURS, CONNECT)[0] == 0
    assert front.g.read(f'/proc/{nbdd(front)}/cmdline').split('\0')[0] == 'nbdd'


def test_what_is_claimed_is_not_cut_off_whoever_is_to_be_seen(front):
    """As by a mount in a namespace that nobody finds, while a process has it open, too."""
    assert front.run(OURS, CONNECT)[0] == 0
    holder = front.g.spawn(['/usr/bin/python3', '-c', EXCLUSIVE])
    wait_until(lambda: 'ready' in holder.output, 20)
    rc, _, err = front.run(OURS, '-d /dev/nbd0')
    assert rc == 1 and f'opened by python3 (pid {holder.pid})' in err
    assert front.device(0) == USUAL and read(front, 10) == 0
    holder.kill()
    holder.wait()


@pytest.mark.parametrize('take, leave, named', [
    ('mkfs.ext4 -qF /dev/nbd0; mount /dev/nbd0 /mnt', 'umount /mnt', 'umount /mnt'),
    ('mkswap /dev/nbd0; swapon /dev/nbd0', 'swapoff /dev/nbd0', 'swapoff /dev/nbd0'),
    # A claim that nobody sees: the mount is in a namespace without a process.
    ('mkfs.ext4 -qF /dev/nbd0; touch /tmp/ns; busybox mount -o bind /tmp/ns /tmp/ns; '
     'mount --make-private /tmp/ns; unshare --mount=/tmp/ns mount /dev/nbd0 /mnt',
     'umount /tmp/ns; umount /tmp/ns', 'not to be seen')], ids=['mount', 'swap', 'unseen'])
def test_what_is_in_use_is_not_cut_off_while_nobody_answers(front, take, leave, named):
    assert front.run(OURS, f'{CONNECT} -swap')[0] == 0
    front.g.sh(take)
    try:
        front.g.kill(nbdd(front), signal.SIGKILL)
        wait_until(lambda: not daemons(front))
        rc, _, err = front.run(OURS, '-d /dev/nbd0')
        assert rc == 1 and 'stays connected' in err and named in err
        assert front.device(0) == USUAL and read(front, 10) == 0
    finally:
        front.g.sh(leave)


def test_a_daemon_that_is_being_restarted_is_waited_for(front):
    assert front.run(OURS, CONNECT)[0] == 0
    front.g.kill(nbdd(front), signal.SIGKILL)
    wait_until(lambda: not daemons(front))
    said = 'nbd0: detached from /dev/nbd0'
    before = front.g.dmesg().count(said)
    p = front.g.spawn([OURS, '-d', '/dev/nbd0'])
    assert front.run(OURS, CONNECT.replace('nbd0', 'nbd1'))[0] == 0     # starts one
    assert p.wait(20) == 0
    assert front.device(0) is None
    assert front.g.dmesg().count(said) == before + 1


def test_what_the_nbdd_before_has_attached_is_not_in_the_way_of_the_same_call(front):
    for pid in daemons(front):
        front.g.kill(pid, signal.SIGTERM)
    wait_until(lambda: not daemons(front))
    rc, err, calls = front.g.python('tests.front.ended:ask', argv=[
        str(OURS), *front.words(CONNECT)], directory='/run/nbdd', answers={
            'Attach': {'parameters': {'device': '/dev/nbd0'}},
            'Status': {'parameters': {'devices': []}}})
    assert rc == 0, err
    [first, second] = [params for method, params in calls if method == 'Attach']
    assert first == {**second, 'fresh': True} and 'fresh' not in second


def test_a_device_that_the_next_nbdd_does_not_know_is_detached_when_the_kernel_says_so(front):
    assert front.run(OURS, CONNECT)[0] == 0

    def detach(name):
        return front.g.python('tests.front.ended:ask', argv=[
            str(NBDCTL), '--runtime-dir=/tmp/ended', 'detach', name], directory='/tmp/ended',
            answers={'Detach': error('NoSuchDevice', device=name)})[:2]
    rc, err = detach('/dev/nbd0')
    assert rc == 4 and 'no device `/dev/nbd0`' in err
    assert detach('/dev/nbd3') == [0, '']


def test_lines_that_scripts_read(front):
    out = 'Negotiation: ..size = 8MB\nConnected /dev/nbd0\n'
    assert front.run(OURS, CONNECT) == (0, out, '')
    assert front.run(OURS, '-c /dev/nbd0') == (0, f'{nbdd(front)}\n', '')
    assert front.run(OURS, '-c /dev/nbd1') == (1, '', '')
    assert front.run(OURS, '-d /dev/nbd0') == (0, '', '')
    assert front.run(OURS, '-l 127.0.0.1 {list}') == (0, 'Negotiation: ..\na\nb\n', '')
    rc, out, err = front.run(OURS, '-l 127.0.0.1 {silent}')
    assert rc == 1 and 'E: listing not allowed by server.\n' in err
    assert re.fullmatch(r'This is nbd-client, from nbd 3\.\d+ \(.*\)\n',
                        front.run(OURS, '-V')[1])
    rc, out, err = front.run(OURS, '127.0.0.1 {none} /dev/nbd0')
    assert rc == 1 and err.startswith('nbd-client: ') and 'refused' in err


def read(front, timeout):
    """Read the device's beginning past the page cache; the status, or None in TIMEOUT."""
    p = front.g.spawn(['dd', 'if=/dev/nbd0', 'of=/dev/null', 'bs=4k', 'count=1',
                       'iflag=direct'])
    try:
        return p.wait(timeout)
    except AssertionError:
        return p


@pytest.mark.parametrize('options, waits', [
    ('-persist', True), ('-swap', True), ('', False), ('-p -T 1', False), ('-T 60', True)])
def test_who_asked_for_it_waits_and_who_did_not_gets_errors(front, options, waits):
    assert front.run(OURS, f'{CONNECT} {options}')[0] == 0
    assert read(front, 10) == 0
    front.tcp.kill()
    try:
        p = read(front, 3)
        assert (p != 0) and isinstance(p, int) != waits
        assert front.run(OURS, '-c /dev/nbd0')[0] == 0
    finally:
        front.tcp.start()
    if waits:
        assert p.wait(15) == 0
    wait_until(lambda: read(front, 10) == 0, 15, 'the device to work again')


def test_swap_and_mounts_are_not_cut_off_and_open_files_are(front):
    assert front.run(OURS, f'{CONNECT} -swap')[0] == 0
    front.g.run(['mkswap', '/dev/nbd0'])
    front.g.run(['swapon', '/dev/nbd0'])
    rc, _, err = front.run(OURS, '-d /dev/nbd0')
    assert rc == 1 and 'swapoff /dev/nbd0' in err and front.device(0)
    front.g.run(['swapoff', '/dev/nbd0'])
    holder = front.g.spawn(['sh', '-c', 'exec sleep 1000 3</dev/nbd0'])
    wait_until(lambda: 'sleep' in front.g.read(f'/proc/{holder.pid}/comm'))
    assert front.run(OURS, '-d /dev/nbd0') == (0, '', '')
    assert read(front, 10) != 0
    holder.kill()
    holder.wait()
    wait_until(lambda: front.device(0) is None)     # the kernel waits for the last close


def test_nofork_stays_until_the_device_goes_and_takes_it_along(front):
    argv = [OURS, *front.words(f'{CONNECT} -nofork')]
    p = front.g.spawn(argv)
    wait_until(lambda: 'Connected /dev/nbd0' in p.output)
    assert p.rc is None
    assert front.run(OURS, '-d /dev/nbd0')[0] == 0
    assert p.wait() == 0
    p = front.g.spawn(argv)
    wait_until(lambda: 'Connected /dev/nbd0' in p.output)
    p.kill(signal.SIGTERM)
    assert p.wait() == 0
    assert front.device(0) is None


@pytest.mark.parametrize('operands, uri', [
    ('127.0.0.1 {list} /dev/nbd0 -N a', 'nbd://127.0.0.1:{list}/a'),
    ('127.0.0.1 10809 /dev/nbd0 -N a', 'nbd://127.0.0.1/a'),
    ('-unix /tmp/s.sock /dev/nbd0 -N a', 'nbd+unix:///a?socket=/tmp/s.sock')])
def test_status_names_the_server_as_a_uri(front, operands, uri):
    assert front.run(OURS, operands)[0] == 0
    [expected] = front.words(uri)
    assert f'URI: {expected}\n' in front.g.run([NBDCTL, 'status', 'nbd0']).out


def test_identifiers_are_seen_in_sysfs(front):
    assert front.run(OURS, f'{CONNECT} -identifier some-text')[0] == 0
    assert front.g.block(0, 'backend') == 'some-text'


def test_preinit_needs_no_handshake(front):
    """A server that speaks transmission alone."""
    server = front.g.spawn(['/usr/bin/python3', '-c', RAW], env={'SIZE': SIZE})
    wait_until(lambda: front.g.listening(port=10999), 20)
    rc, out, err = front.run(OURS, f'127.0.0.1 10999 /dev/nbd0 -preinit -size {SIZE}')
    assert rc == 0, err
    assert front.device(0) == USUAL
    assert front.g.run(['dd', 'if=/dev/nbd0', 'bs=16', 'count=1']).out.startswith('raw raw raw')
    front.clean(OURS)
    server.kill()


def test_certificates_and_keys_are_in_files_of_any_name(front):
    """Each alone, as options and in nbdtab; certificate and key in one file."""
    at = front.g.path / 'pki'
    at.mkdir()
    ca = Authority(at / 'ca')
    ca.issue(at / 'server', 'server')
    ca.issue(at / 'client', 'client')
    for name, parts in {'x.ca': ['ca-cert'], 'x.crt': ['client-cert'], 'x.key': ['client-key'],
                        'both': ['client-cert', 'client-key']}.items():
        (at / name).write_text(''.join((at / 'client' / f'{p}.pem').read_text() for p in parts))
        (at / name).chmod(0o600)
    tls = f'-cacertfile {at}/x.ca -certfile {at}/x.crt -keyfile {at}/x.key'
    with Nbdkit(front.g, ('memory', '8M'), tcp=True, options=[
            '--tls=require', f'--tls-certificates={at}/server', '--tls-verify-peer']) as s:
        def connect(options):
            rc, _, err = front.run(OURS, f'127.0.0.1 {s.port} /dev/nbd0 {options}')
            found = front.device(0)
            front.clean(OURS)
            return rc, err, found
        assert connect(tls) == (0, '', USUAL)
        assert connect(f'-A {at}/x.ca -K {at}/both') == (0, '', USUAL)
        assert front.run(OURS, f'-l 127.0.0.1 {s.port} {tls}')[0] == 0
        rc, err, found = connect(f'-A {at}/x.crt -F {at}/x.crt -K {at}/x.key')
        assert (rc, found) == (1, None) and 'unknown CA' in err
        rc, err, found = connect(f'-A {at}/x.ca -F {at}/none')
        assert (rc, found) == (1, None) and f'there is no {at}/none' in err
        front.write_nbdtab(f'nbd0 127.0.0.1 a port={s.port},cacertfile={at}/x.ca,'
                           f'certfile={at}/x.crt,keyfile={at}/x.key\n')
        assert front.run(OURS, 'nbd0')[::2] == (0, '') and front.device(0) == USUAL
        front.clean(OURS)


EXCLUSIVE = """
import os, signal
os.open('/dev/nbd0', os.O_RDONLY | os.O_EXCL)
print('ready', flush=True)
signal.pause()
"""

# Answers reads with text and everything else with nothing: simple replies of the protocol.
RAW = r'''
import socket, struct
s = socket.create_server(('127.0.0.1', 10999))
c, _ = s.accept()
f = c.makefile('rwb')
while data := f.read(28):
    magic, flags, kind, cookie, offset, length = struct.unpack('>IHHQQI', data)
    if kind == 2:
        break
    f.write(struct.pack('>IIQ', 0x67446698, 0, cookie) + (b'raw ' * (length // 4) if kind == 0 else b''))
    f.flush()
'''


def test_help_names_every_option_of_the_manual():
    import subprocess
    page = (BUILD / 'man/man8/nbd-client.8').read_text().replace('\\-', '-')
    text = subprocess.run([OURS, '-help'], stderr=subprocess.PIPE, text=True).stderr
    options = re.findall(r' (-[a-z][a-z-]+)', text)
    assert len(options) >= 20
    assert [o for o in options if f'\\fB{o}\\fR' not in page] == []
