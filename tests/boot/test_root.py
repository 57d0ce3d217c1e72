"""A Debian whose root is on NBD boots, outlives its server's restarts, and ends cleanly."""
import contextlib
import re
import shutil
import subprocess
import types

import pytest

from tests.boot.image import Tree
from tests.boot.packages import package
from tests.boot.vm import HOST, Vm
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until

# Not in CI yet: in the outage after the upgrade nbdctl did not answer within a minute, on a
# machine of tests; whether nbdd or the test is at fault is not known.  Part of issue E.
pytestmark = [pytest.mark.boot, pytest.mark.soak]

# Files of random bytes, each written, synced, and read back past the cache; a line for each.
WRITER = '''#!/run/agent/bin/busybox sh
i=0
while [ ! -e /run/agent/stop ]; do
    i=$((i + 1))
    sum=$(dd if=/dev/urandom bs=64k count=4 2>/dev/null | tee /root/w$((i % 20)) | md5sum)
    sync /root/w$((i % 20)) || echo "error: sync $i" >>/run/agent/log
    echo 1 >/proc/sys/vm/drop_caches
    [ "$(md5sum </root/w$((i % 20)))" = "$sum" ] || echo "error: data of $i" >>/run/agent/log
    echo $i >/run/agent/count
done
echo end >>/run/agent/log
'''


@pytest.fixture(scope='module')
def debian(tmp_path_factory):
    """A disk image with nbdd installed from its packages, kernel, and both kinds of initial
    filesystem."""
    path = tmp_path_factory.mktemp('debian')
    tree = Tree(path / 'tree')
    for name in ('nbdd', 'nbdd-boot'):
        shutil.copy(package(name), tree / f'/root/{name}.deb')
    tree.chroot('dpkg -i /root/nbdd.deb /root/nbdd-boot.deb; rm /root/nbdd-boot.deb')
    tree.write('/usr/local/sbin/tests-writer', WRITER, 0o755)
    initrd = {'initramfs-tools': tree.initramfs(), 'dracut': tree.dracut()}
    found = types.SimpleNamespace(image=tree.ext4(path / 'root.ext4'), initrd={})
    for name, file in initrd.items():
        found.initrd[name] = shutil.copy(file, path / name)
    found.kernel = shutil.copy(tree.kernel, path / 'vmlinuz')
    shutil.rmtree(tree.path)
    yield found
    shutil.rmtree(path)


@contextlib.contextmanager
def booted(host, debian, by, append):
    """A machine that is up, and the server of its root."""
    image = shutil.copy(debian.image, host.path / 'root.ext4')
    with Nbdkit(host, ['file', str(image)], tcp=True) as server:
        with Vm(debian.kernel, debian.initrd[by], append.format(port=server.port),
                host.path) as vm:
            yield vm.wait_up(), server
        fsck = subprocess.run(['e2fsck', '-fn', image], capture_output=True, text=True)
        assert fsck.returncode == 0, fsck.stdout


def states(vm):
    return re.findall(r'"state": ?"(\w+)",', vm.sh('/run/agent/bin/nbdctl status --json'))[:1]


def written(vm):
    return int(vm.sh('cat /run/agent/count'))


def outage(vm, server, seconds):
    """The server is killed and comes back; nothing fails, and writing goes on."""
    server.kill()
    watch = Stopwatch()
    wait_until(lambda: states(vm)[0] != 'connected', 30, 'the outage to be seen')
    wait_until(lambda: watch() >= seconds, seconds + 1, 'the outage to pass', interval=0.5)
    before = written(vm)
    server.start()
    wait_until(lambda: states(vm) == ['connected'], 60, 'the root to be back')
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


def test_a_root_by_initramfs_tools_survives_its_server(host, debian):
    with booted(host, debian, 'initramfs-tools',
                f'root=/dev/nbd0 rw ip=dhcp nbdroot={HOST}:{{port}}/') as (vm, server):
        wait_until(lambda: vm.sh('systemctl is-active nbdd || true').strip() == 'active', 120,
                   'nbdd.service')
        start_writing(vm)
        [first] = daemons(vm)
        assert daemons(vm)[first].startswith('@')
        outage(vm, server, 5)
        vm.sh('/usr/bin/dpkg -i /root/nbdd.deb', timeout=240)             # an upgrade
        wait_until(lambda: states(vm) == ['connected'], 60, 'the root to be connected')
        assert first not in daemons(vm)
        outage(vm, server, 1)
        outage(vm, server, 60)
        end_well(vm)


def test_a_root_by_dracut_survives_its_server(host, debian):
    with booted(host, debian, 'dracut', f'root=nbd:{HOST}:{{port}}:ext4 rw ip=dhcp '
                'rd.shell=0') as (vm, server):
        wait_until(lambda: vm.sh('systemctl is-active nbdd || true').strip() == 'active', 120,
                   'nbdd.service')
        start_writing(vm)
        assert [n[0] for n in daemons(vm).values()] == ['@']
        outage(vm, server, 5)
        end_well(vm)
