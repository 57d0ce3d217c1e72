"""A Debian whose root is on NBD boots, outlives its server's restarts, and ends cleanly."""
import contextlib
import re
import shutil
import subprocess

import pytest

from tests.boot.image import Tree, run
from tests.boot.packages import package
from tests.boot.vm import HOST, Vm
from tests.harness.pki import Authority
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until

pytestmark = [pytest.mark.boot, pytest.mark.soak]

# Files of random bytes, each written, synced, and read back past the cache.
WRITER = '''#!/run/agent/bin/busybox sh
i=0
while [ ! -e /run/agent/stop ]; do
    i=$((i + 1))
    sum=$(dd if=/dev/urandom bs=64k count=4 2>/dev/null | tee /root/w$((i % 20)) | md5sum)
    sync /root/w$((i % 20)) || echo "error: sync $i" >>/run/agent/log
    back=$(dd if=/root/w$((i % 20)) iflag=direct bs=64k 2>/dev/null | md5sum)
    [ "$back" = "$sum" ] || echo "error: data of $i" >>/run/agent/log
    echo $i >/run/agent/count
done
echo end >>/run/agent/log
'''


class Debian:
    """A disk image with nbdd installed from its packages, and certificates for it in the
    place from which they go into an initramfs; kernel; initial filesystems of several kinds,
    made when they are asked for."""

    def __init__(self, path):
        self.path, self.made = path, {}
        self.tree = tree = Tree(path / 'tree')
        for name in ('nbdd', 'nbdd-boot'):
            shutil.copy(package(name), tree / f'/root/{name}.deb')
        tree.chroot('dpkg -i /root/nbdd.deb /root/nbdd-boot.deb; rm /root/nbdd-boot.deb')
        tree.write('/usr/local/sbin/tests-writer', WRITER, 0o755)
        ca = Authority(path / 'ca')
        self.server = ca.issue(path / 'server', 'server', (f'ip_address = {HOST}',))
        client = ca.issue(path / 'client', 'client')
        (tree / '/etc/nbdd').mkdir()
        shutil.copytree(client, tree / '/etc/nbdd/boot')
        tree.write('/etc/initramfs-tools/conf.d/umask', 'UMASK=0077\n')
        self.kernel = tree.kernel
        self.image = tree.ext4(path / 'root.ext4')

    def initrd(self, kind):
        if kind not in self.made:
            self.made[kind] = shutil.copy(getattr(self.tree, kind)(), self.path / kind)
        return self.made[kind]


@pytest.fixture(scope='module')
def debian(tmp_path_factory):
    path = tmp_path_factory.mktemp('debian')
    yield Debian(path)
    shutil.rmtree(path)


@contextlib.contextmanager
def booted(host, debian, kind, append, options=(), change=()):
    """A machine that is up, its nbdd.service, too, and the server of its root.  CHANGE are
    files of the root, and what is in them."""
    image = shutil.copy(debian.image, host.path / 'root.ext4')
    for name, text in change:
        (host.path / 'file').write_text(text)
        run(['debugfs', '-w', '-R', f'rm {name}', image])
        run(['debugfs', '-w', '-R', f'write {host.path}/file {name}', image])
    with Nbdkit(host, ['file', str(image)], tcp=True, options=options) as server:
        append = append.format(at=f'{HOST}:{server.port}', port=server.port)
        with Vm(debian.kernel, debian.initrd(kind), f'rw ip=dhcp {append}', host.path) as vm:
            vm.wait_up()
            wait_until(lambda: vm.sh('systemctl is-active nbdd || true').strip() == 'active',
                       120, 'nbdd.service')
            yield vm, server
        fsck = subprocess.run(['e2fsck', '-fn', image], capture_output=True, text=True)
        assert fsck.returncode == 0, fsck.stdout


def status(vm, name='root'):
    return vm.sh(f'/run/agent/bin/nbdctl status {name} --json')


def state(vm, name='root'):
    found = re.search(r'"state": ?"(\w+)",', status(vm, name))
    return found and found[1]


def written(vm):
    return int(vm.sh('cat /run/agent/count'))


def outage(vm, server, seconds):
    """The server is killed and comes back; nothing fails, and writing goes on."""
    server.kill()
    watch = Stopwatch()
    wait_until(lambda: state(vm) != 'connected', 60, 'the outage to be seen')
    wait_until(lambda: watch() >= seconds, seconds + 1, 'the outage to pass', interval=0.5)
    before = written(vm)
    server.start()
    wait_until(lambda: state(vm) == 'connected', 60, 'the root to be back')
    wait_until(lambda: written(vm) > before + 1, 60, 'writing to go on')


def start_writing(vm):
    vm.sh('cp /usr/local/sbin/tests-writer /run/agent/writer; echo 0 >/run/agent/count; '
          'setsid /run/agent/bin/busybox sh /run/agent/writer >/dev/null 2>&1 &')
    wait_until(lambda: written(vm) > 1, 60, 'the writer')


def end_well(vm):
    """No error was seen, the root can be written to, and the machine shuts down."""
    vm.sh('touch /run/agent/stop')
    wait_until(lambda: vm.sh('cat /run/agent/log').split() == ['end'], 60, 'the writer to end')
    trouble = vm.sh('dmesg | grep -E "I/O error|EXT4-fs.*(error|remount|abort)" || true')
    assert trouble == ''
    assert re.search(r' / ext4 rw', vm.sh('cat /proc/mounts'))
    vm.off()


def daemons(vm):
    """{pid: argv[0]} of the daemons, as the service manager's last kill sees them."""
    script = 'for p in $(pidof nbdd); do echo $p $(tr "\\0" " " </proc/$p/cmdline); done'
    return {line.split()[0]: line.split()[1] for line in vm.sh(script).splitlines()}


@pytest.mark.parametrize('last', [1, pytest.param(60, marks=pytest.mark.soak)])
def test_a_root_by_initramfs_tools_survives_its_server_and_an_upgrade(host, debian, last):
    with booted(host, debian, 'initramfs', 'root=/dev/nbd0 nbdroot={at}/') as (vm, server):
        start_writing(vm)
        [first] = daemons(vm)
        assert daemons(vm)[first].startswith('@')
        outage(vm, server, 5)
        vm.sh('/usr/bin/dpkg -i /root/nbdd.deb', timeout=240)             # an upgrade
        wait_until(lambda: state(vm) == 'connected', 60, 'the root to be connected')
        assert first not in daemons(vm)
        outage(vm, server, last)
        end_well(vm)


# What the kernel is told, for the initial filesystems that are made in these ways.
OTHERS = {
    'dracut': 'root=nbd:{at}:ext4 rd.shell=0',
    'initramfs_of_theirs': 'root=/dev/nbd0 nbdroot={at}/',
    'dracut_of_theirs': 'root=nbd:{at}:ext4 rd.shell=0',
}


@pytest.mark.soak
@pytest.mark.parametrize('kind', OTHERS)
def test_a_root_attached_in_other_ways_survives_its_server(host, debian, kind):
    """By dracut; by the distribution's own scripts, which find nbd-client alone."""
    with booted(host, debian, kind, OTHERS[kind]) as (vm, server):
        start_writing(vm)
        assert [n[0] for n in daemons(vm).values()] == ['@']
        outage(vm, server, 5)
        end_well(vm)


@pytest.mark.soak
@pytest.mark.parametrize('kernel_tls', ['require', 'off'])
def test_a_root_over_tls_survives_its_server(host, debian, kernel_tls):
    """In the kernel; and by a relay, which a shutdown kills, and which nbdd begins anew."""
    tls = ['--tls=require', '--tls-verify-peer', f'--tls-certificates={debian.server}']
    with booted(host, debian, 'initramfs', 'root=/dev/nbd0 nbdd.attach=root=nbds://{at}/,'
                'device=/dev/nbd0,tls-certificates=/etc/nbdd/boot,'
                f'kernel-tls={kernel_tls}', tls) as (vm, server):
        start_writing(vm)
        in_kernel = 'true' if kernel_tls == 'require' else 'false'
        assert re.search(fr'"in_kernel": ?{in_kernel}', status(vm))
        outage(vm, server, 5)
        end_well(vm)


CONF = '''[defaults]
connect-timeout = 5s
[data]
uri = nbd://{host}:{data.port}/
device = /dev/nbd1
[swap]
uri = nbd://{host}:{swap.port}/
device = /dev/nbd2
swap = yes
[away]
uri = nbd://{host}:{away.port}/
device = /dev/nbd3
'''
FSTAB = '''/dev/nbd1 /srv ext4 _netdev 0 2
/dev/nbd2 none swap _netdev,nofail 0 0
/dev/nbd3 /mnt ext4 _netdev,nofail,x-systemd.device-timeout=20s 0 0
'''


@pytest.mark.soak
def test_disks_of_fstab_and_swap_under_pressure(host, debian):
    """A data disk, swap whose server restarts when it is needed, and a disk without which
    the boot goes on."""
    servers = {}
    for name in ('data', 'swap', 'away'):
        file = host.path / name
        run(['truncate', '-s', '512M', file])
        run(['mkswap', file] if name == 'swap' else ['mke2fs', '-q', '-F', '-t', 'ext4', file])
        servers[name] = Nbdkit(host, ['file', str(file)], tcp=True)
    change = [('/etc/nbdd.conf', CONF.format(host=HOST, **servers)), ('/etc/fstab', FSTAB)]
    with servers['data'] as data, servers['swap'] as swap, booted(
            host, debian, 'initramfs', 'root=/dev/nbd0 nbdroot={at}/', change=change) as (vm, _):
        wait_until(lambda: ' /srv ext4 ' in vm.sh('cat /proc/mounts'), 60, '/srv')
        wait_until(lambda: '/dev/nbd2 ' in vm.sh('cat /proc/swaps'), 60, 'the swap')
        wait_until(lambda: state(vm, 'away') == 'connecting', 60, 'the boot without a disk')
        with servers['away']:
            wait_until(lambda: state(vm, 'away') == 'connected', 60, 'the disk to come back')
        vm.sh('mkdir /run/agent/big; mount -t tmpfs -o size=600m big /run/agent/big')
        vm.sh('dd if=/dev/urandom of=/run/agent/big/x bs=1M count=480; '
              'md5sum </run/agent/big/x >/run/agent/sum', 300)
        used = int(vm.sh('cat /proc/swaps').splitlines()[1].split()[3])
        assert used > 50 << 10
        swap.kill()
        data.kill()
        reading = vm.start('md5sum </run/agent/big/x | cmp - /run/agent/sum; echo $?')
        swap.start()
        data.start()
        assert vm.finish(reading, 300) == (0, '0\n')
        vm.sh('rm /run/agent/big/x; umount /run/agent/big; touch /srv/x; sync /srv/x')
        vm.off()
    fsck = subprocess.run(['e2fsck', '-fn', host.path / 'data'], capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stdout
