"""A machine whose root filesystem is on a device of its own nbdd, inside the guest that tests it.

It is a mount namespace: its root an ext4 on the device, with nbdd and its libraries; /dev, /proc,
/run and /sys are the guest's.  nbdd starts in the guest, whose root is a hostfs, attaches the
devices, and one that is started in the machine takes over, as from an initramfs.  The servers,
and what else a test needs, run in the guest and need nothing of the device.
"""
import re
import shutil
import subprocess

from tests.harness.daemon import Daemon
from tests.harness.paths import NBDD

AT = '/mnt/machine'
ROOT_MB, DATA_MB = 64, 32
EXPORTS = '/tmp/exports'
BINARY = '/usr/sbin/nbdd'
# The shell becomes nbdd: its process is the one that was asked for.
ENTER = f'''cd {AT}; mkdir -p old; pivot_root . old; exec /bin/busybox sh -ec '
	/bin/busybox umount -l /old; exec "$@"' sh "$@" '''


def libraries():
    """What the dynamic linker loads for nbdd, itself included."""
    text = subprocess.run(['ldd', NBDD], check=True, capture_output=True, text=True).stdout
    return re.findall(r'(/\S+) \(0x', text)


def lay_out(tree):
    for name in ('bin', 'dev', 'etc', 'proc', 'root', 'run', 'sys', 'tmp', 'usr/sbin'):
        (tree / name).mkdir(parents=True)
    for file, to in [(NBDD, BINARY), ('/bin/busybox', '/bin/busybox'),
                     *((f, f) for f in libraries())]:
        (tree / to[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tree / to[1:])


def make_exports(guest, certificates):
    """The disks, `root` and `data`, in memory that is all taken at once.  The directory
    CERTIFICATES is in the machine under the same name."""
    tree, image = guest.path / 'tree', guest.path / 'root.img'
    lay_out(tree)
    shutil.copytree(certificates, tree / str(certificates)[1:])
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-E', 'lazy_itable_init=0', '-d', tree, image,
                    f'{ROOT_MB}M'], check=True, capture_output=True)
    shutil.rmtree(tree)
    guest.sh(f'mkdir {EXPORTS}; mount -t tmpfs -o size=90% exports {EXPORTS}; cd {EXPORTS}; '
             f'cp {image} root; fallocate -l {ROOT_MB}M root; fallocate -l {DATA_MB}M data')
    image.unlink()


class LostRoot:
    """The machine, running, with its nbdd as `daemon`, which has the devices `root` and `data`
    of the server at URI, each with KEYS and those of its own."""

    def __init__(self, guest, uri, keys, root=(), data=()):
        self.guest, self.daemon = guest, Daemon(guest).start()
        self.devices = [self.daemon.attach(uri + name, name=name, **keys, **dict(own))
                        for name, own in [('root', root), ('data', data)]]
        guest.sh(f'mkdir -p {AT}; mount -o noatime {self.devices[0]} {AT}; '
                 f'for i in dev proc run sys; do mount --bind /$i {AT}/$i; done')
        self.hand_over('unshare', '--mount', '--propagation=private', 'sh', '-ec', ENTER, 'sh',
                       BINARY, '--replace', f'--runtime-dir={self.daemon.runtime_dir}')

    def hand_over(self, *argv):
        old, self.daemon.process = self.daemon.process, self.guest.spawn(argv)
        self.daemon.spawned.append(self.daemon.process)
        self.daemon.wait_ready(self.daemon.process)
        assert old.wait(30) == 0, old.output

    def end(self):
        """With an nbdd of the guest in charge: the machine ends, and fsck finds it clean."""
        self.guest.sh(f'for i in dev proc run sys; do umount {AT}/$i; done; umount {AT}; '
                      f'e2fsck -fn {self.devices[0]}')
        self.daemon.close()

    @property
    def pid(self):
        return self.daemon.pid

    @property
    def pids(self):
        """Of nbdd, and of the process that makes its connectors."""
        return [self.daemon.pid, self.daemon.spawner]

    def attempts(self):
        return self.daemon.status('root')['retry']['attempts']

    def mappings(self, pid=None):
        """Of each of their mappings, or of PID's: line of smaps that begins it, {what: KiB or
        flags}."""
        found = []
        for line in ''.join(self.guest.read(f'/proc/{p}/smaps')
                            for p in ([pid] if pid else self.pids)).splitlines():
            if re.match('[0-9a-f]+-', line):
                found.append((line, {}))
            else:
                name, value = line.split(':', 1)
                found[-1][1][name] = value.split()
        return found

    def mapped(self):
        """Where what is mapped, but for what is shared with somebody: who is to read keys, or
        a connector, which has its job there, and for the states of devices."""
        return [line for line, _ in self.mappings() if line.split()[1][3] != 's']

    def elsewhere(self):
        """Their mappings of files that are not on the device."""
        device = '%02x:%02x' % tuple(map(int, self.guest.read(
            f'/sys/block/{self.devices[0][5:]}/dev').split(':')))
        return [line for line in self.mapped() if '/' in line and line.split()[3] != device]

    def not_held(self, pid=None):
        """Their mappings, or PID's, of which a page that may be used is not there, or might go.
        One that has just been made, for a job, gets its pages only then: look twice."""
        before = self.not_held_now(pid)
        return before and [line for line in self.not_held_now(pid) if line in before]

    def not_held_now(self, pid):
        return [line for line, of in self.mappings(pid)
                if not line.split()[1].startswith('---') and '[v' not in line and
                (of['Rss'] != of['Size'] or 'lo' not in of['VmFlags'])]

    def faults(self):
        """Of both: minor, major; of their children that have ended: minor, major."""
        stats = [self.guest.read(f'/proc/{pid}/stat').rsplit(')', 1)[1].split()
                 for pid in self.pids]
        return [sum(int(fields[n]) for fields in stats) for n in (7, 9, 8, 10)]

    def cached(self, *files):
        """KiB in memory of each of the machine's FILES."""
        out = self.guest.run(['fincore', '-bnr', '-o', 'RES', *[AT + f for f in files]]).out
        return [int(n) >> 10 for n in out.split()]
