"""What the script for initramfs-tools makes of a command line and of what DHCP gave.
tests/boot has boots by it."""
import re
import shlex
import subprocess

import pytest

from tests.harness.paths import BUILD, ROOT

# The distribution's functions, of which one reads the leases, too; and what would be attached
# is shown.
FUNCTIONS = f'''
wait_for_udev() {{ :; }}
modprobe() {{ :; }}
panic() {{ echo "panic: $*" >&2; }}
configure_networking() {{ for lease in /run/net-*.conf; do . "$lease"; done; }}
nbdctl() {{
    [ "$2" = --print ] || set -- boot --print "$2"
    {BUILD}/nbdctl "$@"
}}
'''
# As in an initramfs: all but programs is the script's own, and so is the command line.
INSIDE = '''
tree=$1 at=$2
shift 2
for d in /usr /proc /dev "$at"; do mkdir -p "$tree$d"; mount --rbind "$d" "$tree$d"; done
mount --bind "$tree/cmdline" "$tree/proc/cmdline"
exec chroot "$tree" "$@" "$at/contrib/initramfs-tools/local-top"
'''
SHELLS = {'dash': ['/usr/bin/dash'], 'busybox': ['/usr/bin/busybox', 'sh']}


class Booted:
    """The keys of the root's device as `root`, the names of all, and what was complained
    about."""

    def __init__(self, path, line, shell, **lease):
        for name in ('run', 'etc', 'scripts'):
            (path / name).mkdir(parents=True)
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            (path / name).symlink_to(f'usr/{name}')
        (path / 'cmdline').write_text(line + '\n')
        (path / 'scripts/functions').write_text(FUNCTIONS)
        (path / 'run/net-eth0.conf').write_text(
            ''.join(f'{name}={shlex.quote(value)}\n' for name, value in lease.items()))
        r = subprocess.run(
            ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', INSIDE, '-', path,
             ROOT, *SHELLS[shell]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60)
        self.status, self.problems = r.returncode, r.stderr
        self.names = re.findall(r'^\[(.*)\]$', r.stdout, re.M)
        self.root = dict(re.findall(r'^(\S+) = (.*)$', r.stdout, re.M))
        self.resolv = (path / 'etc/resolv.conf').read_text()


ROOT_SERVER, EVIL = '192.0.2.1', 'nbd://evil/root'
OURS = 'nbds://srv/root?tls-certificates=/etc/nbdd/boot'


@pytest.mark.parametrize('shell', SHELLS)
def test_where_dhcp_says_that_the_root_is(shell, tmp_path):
    lease = {'IPV4DNS0': '192.0.2.53', 'IPV4DNS1': '0.0.0.0', 'ROOTSERVER': ROOT_SERVER}
    for i, (line, path, keys) in enumerate((
            ('nbdroot=dhcp', 'nbd://srv/a%20b?x=1&y=2', {'uri': 'nbd://srv/a%20b?x=1&y=2'}),
            ('nbdroot=dhcp', r"nbd://srv/it's\040$x`", {'uri': r"nbd://srv/it's\040$x`"}),
            ('nbdroot=dhcp', 'srv:10810/data', {'addresses': 'srv', 'port': '10810',
                                                'export': 'data'}),
            ('nbdroot=dhcp', '/data', {'addresses': ROOT_SERVER, 'export': '/data'}),
            ('nbdroot=dhcp,data', '', {'addresses': ROOT_SERVER, 'export': 'data'}))):
        b = Booted(tmp_path / str(i), f'quiet {line} ip=dhcp', shell, ROOTPATH=path, **lease)
        assert (b.status, b.problems, b.names) == (0, '', ['root'])
        assert b.root == {'device': '/dev/nbd0', **keys}
        assert b.resolv == 'nameserver 192.0.2.53\n'


@pytest.mark.parametrize('shell', SHELLS)
@pytest.mark.parametrize('path', [
    EVIL, f'x nbdroot={EVIL}', f'x\tnbdroot={EVIL}', f'x\nnbdroot={EVIL}',
    rf'x\040nbdroot={EVIL}', rf'x\nnbdroot={EVIL}', f'"x nbdroot={EVIL} ', '"',
    f'x nbdd.attach=e={EVIL},on-event=/bin/sh,on-event-user=root', f'x nbdd.root-path={EVIL}',
])
def test_the_command_line_wins_over_dhcp(path, shell, tmp_path):
    b = Booted(tmp_path / '1', f'nbdroot={OURS} root=/dev/nbd0', shell, ROOTPATH=path,
               ROOTSERVER=path)
    assert (b.status, b.names) == (0, ['root'])
    assert b.root == {'device': '/dev/nbd0', 'uri': OURS}
    # One that is no single word is not taken where DHCP is asked, either.
    b = Booted(tmp_path / '2', 'nbdroot=dhcp', shell, ROOTPATH=path)
    if path == EVIL:
        assert b.root['uri'] == EVIL
    else:
        assert b.names == [] and 'panic' in b.problems
    assert ('left out' in b.problems) == bool(re.search(r'[\s"]', path))
    # Nor does what DHCP says replace what it was told on the line.
    b = Booted(tmp_path / '3', f'nbdroot=dhcp nbdd.root-path={OURS}', shell, ROOTPATH=path)
    assert b.root['uri'] == OURS
