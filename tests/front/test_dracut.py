"""What dracut's module makes of a command line: the variables that the rest of dracut goes on
with, and the mount of the root.  tests/boot has boots by it."""
import os
import re
import subprocess

import pytest

from tests.harness.paths import BUILD, ROOT

# As in an initramfs: /run and /etc are the scripts' own, and so is the command line.
INSIDE = '''
mount --bind "$1/cmdline" /proc/cmdline
mount --bind "$1/run" /run
mount --bind "$1/etc" /etc
hookdir=/run/hooks
getcmdline() { cat /proc/cmdline; }
wait_for_dev() { echo "waited=$2"; }
root=$2
. "$3/parse-nbdd.sh"
echo "root=$root"; echo "netroot=$netroot"; echo "rootok=$rootok"
echo "fstype=$fstype"; echo "rflags=$rflags"
mkdir /run/units
sh -e "$3/generator.sh" /run/units /run/units /run/units
'''


class Parsed:
    """The variables as `v`; units of systemd and drop-ins, by name, as `units`."""

    def __init__(self, path, line):
        for name in ('run', 'etc'):
            (path / name).mkdir()
        (path / 'cmdline').write_text(line + '\n')
        root = ([''] + re.findall(r'(?<!\S)root=(\S+)', line))[-1]
        r = subprocess.run(
            ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', INSIDE, '-', path, root,
             ROOT / 'contrib' / 'dracut'], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, env={**os.environ, 'PATH': f'{BUILD}:/usr/sbin:/usr/bin'})
        assert (r.returncode, r.stderr) == (0, ''), r.stderr
        self.v = dict(line.split('=', 1) for line in r.stdout.splitlines())
        self.files = {str(f.relative_to(path)): f.read_text()
                      for d in ('run/units', 'etc') for f in (path / d).rglob('*')
                      if f.is_file() and not f.is_symlink()}
        self.conf = (path / 'run/nbdd-root/boot.conf').read_text()
        self.online = path / 'run/hooks/initqueue/online/90-nbdd.sh'

    @property
    def mount(self):
        text = self.files.get('run/units/sysroot.mount', '')
        return dict(line.split('=', 1) for line in text.splitlines()
                    if line.startswith(('What', 'Type', 'Options')))


INSTALL = '''
inst_multiple() { printf '%s\\n' "$@"; }
inst_libdir_file() { for d in $libdirs; do printf '%s\\n' $d/$1; done; }
inst_hook() { :; }
inst_script() { :; }
dracut_module_included() { false; }
dracut_need_initqueue() { :; }
libdirs='/lib /usr/lib /usr/lib64'
libdirs+=" $(dirname $(ldconfig -p | sed -n 's|.*=> \\(.*/libxml2.so.2\\)$|\\1|p'))"
moddir=$1
. "$1/module-setup.sh"
install
'''


def test_what_reads_uris_is_there_with_all_that_it_needs():
    r = subprocess.run(['bash', '-c', INSTALL, '-', ROOT / 'contrib' / 'dracut'], timeout=60,
                       stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (r.returncode, r.stderr) == (0, ''), r.stderr
    files = {os.path.basename(line) for line in r.stdout.splitlines()}
    [xml] = {line for line in r.stdout.splitlines() if line.endswith('/libxml2.so.2')}
    needs = re.findall(r'=> \S*/(\S+) ', subprocess.run(['ldd', xml], capture_output=True,
                                                        text=True, check=True).stdout)
    assert 'libc.so.6' in needs and set(needs) <= files
    assert {'nbdd', 'nbdctl'} <= files


# root= of the variables, fstype, rflags, and what the root's mount says; None if systemd's
# own generator makes the mount.
DISK, EXT4 = 'block:/dev/nbd0', {'What': '/dev/nbd0', 'Type': 'ext4'}
ROOTS = {
    'root=nbd:srv:10809:ext4 rw': (DISK, 'ext4', '', {**EXT4, 'Options': 'rw'}),
    'root=nbd:srv:data:ext4:noatime ro': (DISK, 'ext4', 'noatime',
                                          {**EXT4, 'Options': 'noatime,ro'}),
    'root=nbd:[::1]:data': (DISK, '', '', {'What': '/dev/nbd0', 'Options': 'ro'}),
    'root=nbd:srv:data rootfstype=ext4 rootflags=noatime rw':
        (DISK, '', '', {**EXT4, 'Options': 'noatime,rw'}),
    'root=nbd://srv/data rootfstype=ext4': (DISK, '', '', {**EXT4, 'Options': 'ro'}),
    'root=nbds://srv/data': (DISK, '', '', {'What': '/dev/nbd0', 'Options': 'ro'}),
    'netroot=nbd:srv:data:ext4': (DISK, 'ext4', '', {**EXT4, 'Options': 'ro'}),
    'netroot=nbd:srv:data root=/dev/nbd0': (DISK, '', '', None),
    'root=/dev/nbd1p2 netroot=nbd:srv:data': ('block:/dev/nbd1p2', '', '', None),
    'root=UUID=0-1 netroot=nbd://srv/data': ('UUID=0-1', '', '', None),
    'root=LABEL=top netroot=nbd:srv:data': ('LABEL=top', '', '', None),
}


@pytest.mark.parametrize('line', ROOTS)
def test_a_root_is_attached_waited_for_and_mounted(line, tmp_path):
    root, fstype, flags, mount = ROOTS[line]
    p = Parsed(tmp_path, f'quiet {line} ip=dhcp')
    assert p.v == {'root': root, 'netroot': 'nbdd', 'rootok': '1', 'fstype': fstype,
                   'rflags': flags} | ({'waited': root[6:]} if root[:6] == 'block:' else {})
    assert p.conf.startswith('[root]\n')
    assert p.mount == (mount or {})
    assert not os.path.lexists(p.online)


@pytest.mark.parametrize('line, seconds', [('', 'infinity'), (' rd.timeout=90', '90')])
def test_the_server_of_the_root_may_be_away_for_longer_than_systemd_waits(line, seconds,
                                                                          tmp_path):
    p = Parsed(tmp_path, f'root=nbd:srv:data{line}')
    assert f'JobTimeoutSec={seconds}\nJobRunningTimeoutSec={seconds}\n' in \
        p.files['run/units/dev-nbd0.device.d/nbdd.conf']


@pytest.mark.parametrize('root', ['/dev/nbd0', 'UUID=0-1', '/dev/sda1'])
def test_other_devices_need_the_network_and_leave_the_root_alone(root, tmp_path):
    p = Parsed(tmp_path, f'root={root} nbdd.attach=data=nbds://srv/x,device=/dev/nbd0')
    assert p.v == {'root': root, 'netroot': '', 'rootok': '', 'fstype': '', 'rflags': ''}
    assert p.files == {'etc/cmdline.d/90-nbdd.conf': 'rd.neednet=1\n'}
    assert os.readlink(p.online) == '/sbin/nbddroot'
    assert p.conf.startswith('[data]\n')


@pytest.mark.parametrize('line', ['root=/dev/sda1', 'root=UUID=0-1 netroot=nfs:srv:/x'])
def test_a_line_without_a_device_of_ours_changes_nothing(line, tmp_path):
    p = Parsed(tmp_path, line)
    assert (p.v['netroot'], p.v['rootok'], p.files) == ('', '', {})
    assert not os.path.lexists(p.online)
