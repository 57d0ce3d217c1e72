"""Disks and swap on NBD of a Debian, by its fstab; memory that ends, and a sleep."""
import contextlib
import re
import socket
import subprocess

import pytest

from tests.boot.debian import booted, daemons, state, status
from tests.boot.image import run
from tests.boot.vm import HOST
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until

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
# `gone` is a server that takes connections and says nothing.
APPEND = ('root=/dev/nbd0 nbdroot={at}/ nbdd.attach=gone=nbd://%s:%d/,device=/dev/nbd4,'
          'connect-timeout=5s,nofail')
MEMORY, FILLED = 320, 260       # MiB
# In a group whose memory may be swapped out; the agent's may not.
PRESSURE = '''#!/run/agent/bin/busybox sh
mkdir -p /sys/fs/cgroup/tests
echo 0 >/sys/fs/cgroup/tests/cgroup.procs
if [ $1 = write ]; then
    dd if=/srv/random iflag=direct of=/run/agent/big/x bs=1M
else
    # What went out first.
    dd if=/srv/random iflag=direct bs=1M count=40 2>/dev/null | cmp -n 41943040 - /run/agent/big/x &&
        echo same
fi >/run/agent/$1.new 2>&1
mv /run/agent/$1.new /run/agent/$1
'''


@pytest.fixture
def servers(host):
    """{name: a server of a file}, none of them started."""
    ext4 = ['mke2fs', '-q', '-F', '-t', 'ext4']
    files = {name: host.path / name for name in ('data', 'swap', 'away')}
    (host.path / 'files').mkdir()
    run(['dd', 'if=/dev/urandom', f'of={host.path}/files/random', 'bs=1M', f'count={FILLED}'])
    run([*ext4, '-d', host.path / 'files', files['data'], '512M'])
    run([*ext4, files['away'], '64M'])
    run(['truncate', '-s', '512M', files['swap']])
    run(['mkswap', files['swap']])
    return {name: Nbdkit(host, ['file', str(file)], tcp=True) for name, file in files.items()}


@contextlib.contextmanager
def silent():
    """The port of a server that says nothing."""
    with socket.create_server(('127.0.0.1', 0)) as sock:
        yield sock.getsockname()[1]


def seconds(vm, unit, prop):
    """Since the kernel's start."""
    return int(vm.sh(f'systemctl show -P {prop} {unit}')) / 1e6


def mounted(vm, what):
    return f' {what} ' in vm.sh('cat /proc/mounts')


def boot_goes_on_without(vm, away):
    """The default target is reached in spite of two disks that nobody serves; one of them
    comes when its server does, later than anybody waited for it."""
    begun = seconds(vm, '', 'UserspaceTimestampMonotonic')
    up = seconds(vm, 'multi-user.target', 'ActiveEnterTimestampMonotonic')
    print(f'systemd after {begun:.1f} s, multi-user.target after {up:.1f} s')
    assert 0 < begun < up
    assert 'mnt.mount' not in vm.sh('systemctl list-dependencies --after --all --plain '
                                    'multi-user.target')
    assert state(vm, 'away') == 'connecting'
    assert vm.try_sh('/run/agent/bin/nbdctl status gone')[0] != 0
    wait_until(lambda: 'dev-nbd3.device' not in vm.sh('systemctl list-jobs'), 60,
               'the end of waiting for the disk')
    assert not mounted(vm, '/mnt')
    with away:
        watch = Stopwatch()
        wait_until(lambda: state(vm, 'away') == 'connected', 60, 'the disk to come back')
        wait_until(lambda: mounted(vm, '/mnt'), 60, 'its mount')
        print(f'mounted {watch():.1f} s after its server came')
        vm.sh('systemctl stop nbd@nbd3')
        assert not mounted(vm, '/mnt')


def used_swap(vm):
    """In MiB."""
    return int(vm.sh('cat /proc/swaps').splitlines()[1].split()[3]) >> 10


def begin(vm, what):
    vm.sh(f'setsid /run/agent/bin/busybox sh /run/agent/pressure {what} >/dev/null 2>&1 &')


def log_of(vm, what):
    wait_until(lambda: vm.try_sh(f'test -e /run/agent/{what}')[0] == 0, 300, what,
               interval=0.5)
    return vm.sh(f'cat /run/agent/{what}')


def lose(servers, seconds):
    """All at once, as a machine that they run on is started anew."""
    for server in servers:
        server.kill()
    watch = Stopwatch()
    wait_until(lambda: watch() >= seconds, seconds + 1, 'the outage to pass', interval=0.5)
    for server in servers:
        server.start()


def swaps_while_its_server_is_away(vm, servers, swap_file):
    """Every server is killed while memory is short and pages go out, and while they come
    back.  Nothing is asked of the machine meanwhile."""
    vm.sh('mkdir /run/agent/big; mount -t tmpfs -o size=100% big /run/agent/big; '
          'cp /usr/local/sbin/tests-pressure /run/agent/pressure')
    begin(vm, 'write')
    watch = Stopwatch()
    wait_until(lambda: swap_file.stat().st_blocks >> 11 >= 20, 120, 'swapping', interval=0.02)
    lose(servers, 10)
    written = swap_file.stat().st_blocks >> 11
    log_of(vm, 'write')
    print(f'{written} MiB swapped out when the servers went, {used_swap(vm)} MiB in the end, '
          f'after {watch():.0f} s')
    assert used_swap(vm) > written
    begin(vm, 'read')
    lose(servers, 5)
    assert log_of(vm, 'read') == 'same\n'
    vm.sh('umount /run/agent/big')
    for daemon in daemons(vm):
        memory = vm.sh(f'grep -e VmSwap -e VmLck -e VmRSS /proc/{daemon}/status')
        print(memory)
        assert re.search(r'VmSwap:\s+0 kB', memory)
    for name in ('swap', 'data', 'root'):
        wait_until(lambda name=name: state(vm, name) == 'connected', 60, name)
        assert int(re.search(r'"count": ?(\d+)', status(vm, name))[1]) >= 2, status(vm, name)


def sleeps_and_wakes(vm, servers):
    """Suspended to memory for longer than keepalive-timeout; the servers are started anew
    meanwhile."""
    with vm.monitor() as (tell, wait):
        asleep = vm.start('echo mem >/sys/power/state')
        wait('SUSPEND')
        lose(servers, 8)
        tell('system_wakeup')
        wait('WAKEUP')
        assert vm.finish(asleep, 120)[0] == 0
    for name in ('root', 'data', 'swap'):
        wait_until(lambda name=name: state(vm, name) == 'connected', 30, name)
        away = int(re.search(r'"duration_usec": ?(\d+)', status(vm, name))[1])
        print(f'{name}: away for {away / 1e6:.2f} s')
        assert away < 5000000
    wait_until(lambda: 'the machine was suspended for' in vm.sh('journalctl -b -u nbdd'), 30,
               'nbdd to say so')
    vm.sh('date >/srv/awake; sync /srv/awake; date >/root/awake; sync /root/awake')


def test_disks_of_fstab_swap_under_pressure_and_a_sleep(host, debian, servers):
    data, swap, away = servers['data'], servers['swap'], servers['away']
    change = [('/etc/nbdd.conf', CONF.format(host=HOST, **servers)), ('/etc/fstab', FSTAB),
              ('/usr/local/sbin/tests-pressure', PRESSURE)]
    watch = Stopwatch()
    with data, swap, silent() as port, booted(
            host, debian, 'initramfs', APPEND % (HOST, port), change=change,
            memory=MEMORY) as (vm, root):
        print(f'nbdd.service up {watch():.1f} s after the start')
        wait_until(lambda: mounted(vm, '/srv'), 60, '/srv')
        wait_until(lambda: '/dev/nbd2 ' in vm.sh('cat /proc/swaps'), 60, 'the swap')
        boot_goes_on_without(vm, away)
        swaps_while_its_server_is_away(vm, [root, data, swap], host.path / 'swap')
        sleeps_and_wakes(vm, [root, data, swap])
        trouble = vm.sh('dmesg | grep -E "I/O error|EXT4-fs.*(error|remount|abort)|'
                        'Out of memory" || true')
        assert trouble == ''
        vm.off()
    fsck = subprocess.run(['e2fsck', '-fn', host.path / 'data'], capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stdout
