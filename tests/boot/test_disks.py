"""Disks and swap on NBD of a Debian, by its fstab."""
import subprocess

import pytest

from tests.boot.debian import booted, state
from tests.boot.image import run
from tests.boot.vm import HOST
from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until

pytestmark = [pytest.mark.boot, pytest.mark.soak]

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
