"""A Debian with nbdd, for the tests that boot it, and what they do with a booted one."""
import contextlib
import re
import shutil
import subprocess

from tests.boot.image import Tree, run
from tests.boot.packages import package
from tests.boot.vm import HOST, Vm
from tests.harness.pki import Authority
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until

# Files of random bytes, each written, synced, and read back past the cache.
WRITER = '''#!/run/agent/bin/busybox sh
i=0
while [ ! -e /run/agent/stop ]; do
    i=$((i + 1))
    sum=$(dd if=/dev/urandom bs=64k count=4 2>/dev/null | tee /root/w$((i % 20)) | md5sum)
    sync /root/w$((i % 20)) || echo "error: sync $i" >>/run/agent/log
    back=$(dd if=/root/w$((i % 20)) iflag=direct bs=64k 2>/dev/null | md5sum)
    [ "$back" = "$sum" ] || echo "error: data of $i" >>/run/agent/log
    echo $i >/run/agent/count.new       # it is never seen empty
    /run/agent/bin/busybox mv /run/agent/count.new /run/agent/count
    /run/agent/bin/busybox sleep 1          # the machine has other work, too
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
        # An initial filesystem is made when a test wants it.
        tree.write('/etc/initramfs-tools/update-initramfs.conf', 'update_initramfs=no\n')
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


@contextlib.contextmanager
def booted(host, debian, kind, append, options=(), change=(), **how):
    """A machine that is up, its nbdd.service, too, and the server of its root, which writes
    what it is asked for since its last start to root.log.  CHANGE are files of the root, and
    what is in them; HOW is for the machine."""
    image = shutil.copy(debian.image, host.path / 'root.ext4')
    for name, text in change:
        (host.path / 'file').write_text(text)
        run(['debugfs', '-w', '-R', f'rm {name}', image])
        run(['debugfs', '-w', '-R', f'write {host.path}/file {name}', image])
    with Nbdkit(host, ['file', str(image), f'logfile={host.path}/root.log'], tcp=True,
                options=['--filter=log', *options]) as server:
        append = append.format(at=f'{HOST}:{server.port}', port=server.port)
        with Vm(debian.kernel, debian.initrd(kind), f'rw ip=dhcp {append}', host.path,
                **how) as vm:
            vm.wait_up()
            wait_until(lambda: vm.sh('systemctl is-active nbdd || true').strip() == 'active',
                       240, 'nbdd.service')
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


def outage(vm, server, seconds, name='root'):
    """The server is killed and comes back; nothing fails, and writing goes on."""
    server.kill()
    watch = Stopwatch()
    wait_until(lambda: state(vm, name) != 'connected', 120, 'the outage to be seen')
    wait_until(lambda: watch() >= seconds, seconds + 1, 'the outage to pass', interval=0.5)
    before = written(vm)
    server.start()
    wait_until(lambda: state(vm, name) == 'connected', 120, 'the root to be back')
    wait_until(lambda: written(vm) > before + 1, 120, 'writing to go on')


def start_writing(vm):
    vm.sh('cp /usr/local/sbin/tests-writer /run/agent/writer; echo 0 >/run/agent/count; '
          'setsid /run/agent/bin/busybox sh /run/agent/writer >/dev/null 2>&1 &')
    wait_until(lambda: written(vm) > 1, 120, 'the writer')


def end_well(vm):
    """No error was seen, the root can be written to, and the machine shuts down."""
    vm.sh('touch /run/agent/stop')
    wait_until(lambda: vm.sh('cat /run/agent/log').split() == ['end'], 120, 'the writer to end')
    trouble = vm.sh('dmesg | grep -E "I/O error|EXT4-fs.*(error|remount|abort)" || true')
    assert trouble == ''
    assert re.search(r' / ext4 rw', vm.sh('cat /proc/mounts'))
    vm.off()
    assert not re.search(r'I/O error|EXT4-fs.*(error|abort)', vm.console()), vm.console()


def daemons(vm):
    """{pid: argv[0]} of the daemons, as the service manager's last kill sees them."""
    script = ('for p in $(pidof nbdd); do [ "$(cat /proc/$p/comm)" = nbdd ] || continue; '
              'echo $p $(tr "\\0" " " </proc/$p/cmdline); done')
    return {line.split()[0]: line.split()[1] for line in vm.sh(script).splitlines()}


def daemon(vm):
    """The pid of the daemon that is nbdd.service, once no other is left beside it."""
    pid = vm.sh('systemctl show -P MainPID nbdd').strip()
    wait_until(lambda: daemons(vm) == {pid: '@nbdd'}, 120, 'one daemon, with its mark')
    return pid


def runs_as_root(vm):
    """nbdd.service, where the root is on a device: by what the generator has linked."""
    assert 'nbdd-root.conf' in vm.sh('systemctl show -P DropInPaths nbdd')
    assert vm.sh(f'grep ^Uid: /proc/{daemon(vm)}/status').split()[1:] == ['0'] * 4


def upgrade(vm):
    """Install the package again, under whatever goes on."""
    before = daemon(vm)
    vm.sh('/usr/bin/dpkg -i /root/nbdd.deb', timeout=600)
    wait_until(lambda: state(vm) == 'connected', 120, 'the root to be connected')
    assert daemon(vm) != before
