"""Debian root filesystems for the tests, made of packages and of what was built here.

`base()` is the distribution's part, made once and kept with the downloads.  A `Tree` is a
copy of it with nbdd installed and set up; `ext4` makes it a disk image without a mount.
"""
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess

from tests.harness.paths import CACHE, ROOT

PACKAGES = [
    'systemd-sysv', 'udev', 'dbus', 'linux-image-cloud-amd64', 'kmod', 'iproute2', 'procps',
    'e2fsprogs', 'busybox-static', 'isc-dhcp-client', 'initramfs-tools', 'dracut-core',
    'dracut-network', 'zstd',
    # what nbdd is linked with
    'libgnutls30', 'libxml2', 'libnl-3-200', 'libnl-genl-3-200', 'libsystemd0', 'libjson-c5',
    'libinih1', 'libseccomp2',
]
SUITE = 'bookworm'
# The documents of packages are of no use here; unpacking them takes time.
LEAVE_OUT = ['/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/man/*', '/usr/share/info/*']
IMAGE_SIZE = '900M'
# Whatever takes long in an emulated machine and is not what is tested.
MASKED = ['systemd-timesyncd.service', 'systemd-logind.service', 'getty.target',
          'serial-getty@ttyS0.service', 'apt-daily.timer', 'apt-daily-upgrade.timer',
          'dpkg-db-backup.timer', 'e2scrub_all.timer', 'e2scrub_reap.service', 'fstrim.timer',
          'systemd-hwdb-update.service', 'dev-hugepages.mount', 'dev-mqueue.mount',
          'modprobe@dm_mod.service', 'modprobe@loop.service', 'systemd-pstore.service',
          'modprobe@configfs.service', 'modprobe@drm.service', 'modprobe@fuse.service',
          'sys-kernel-config.mount', 'sys-kernel-debug.mount', 'sys-kernel-tracing.mount',
          'sys-fs-fuse-connections.mount', 'systemd-update-utmp.service',
          'systemd-update-utmp-runlevel.service']

AGENT_UNIT = '''[Unit]
Description=The tests' agent
DefaultDependencies=no
After=systemd-tmpfiles-setup-dev.service
IgnoreOnIsolate=yes
[Service]
ExecStart=/usr/local/sbin/tests-agent
OOMScoreAdjust=-1000
MemorySwapMax=0
KillMode=process
[Install]
WantedBy=sysinit.target
'''


def run(argv, **how):
    r = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, errors='replace', **how)
    assert r.returncode == 0, f'{argv}: status {r.returncode}\n{(r.stdout + r.stderr)[-4000:]}'
    return r.stdout


def base():
    """The directory with the distribution's packages; nobody changes it."""
    text = ' '.join([SUITE, *PACKAGES, *LEAVE_OUT])
    tree = CACHE / f'boot-{hashlib.sha256(text.encode()).hexdigest()[:16]}'
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / 'boot.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            new = pathlib.Path(f'{tree}.new')
            shutil.rmtree(new, ignore_errors=True)
            run(['mmdebstrap', '--variant=minbase', f'--include={",".join(PACKAGES)}',
                 *(f'--dpkgopt=path-exclude={p}' for p in LEAVE_OUT), SUITE, new],
                timeout=900)
            new.rename(tree)
    return tree


class Tree:
    """A root filesystem as a directory, to be changed and made an image of."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        run(['cp', '-a', '--reflink=auto', base(), self.path])
        self.version = next((self.path / 'boot').glob('vmlinuz-*')).name[len('vmlinuz-'):]
        self.write('/etc/hostname', 'nbdd-test\n')
        self.write('/etc/fstab', '')
        self.write('/etc/initramfs-tools/conf.d/tests',
                   'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n')
        modules = ('virtio_pci', 'virtio_net', 'virtio_rng', 'virtio_blk')
        self.write('/etc/initramfs-tools/modules', ''.join(f'{m}\n' for m in modules))
        self.install_agent()
        for unit in MASKED:
            self.link('/dev/null', f'/etc/systemd/system/{unit}')

    def install_agent(self):
        self.write('/usr/local/sbin/tests-agent',
                   (ROOT / 'tests' / 'boot' / 'agent').read_text(), 0o755)
        self.write('/etc/systemd/system/tests-agent.service', AGENT_UNIT)
        self.link('../tests-agent.service',
                  '/etc/systemd/system/sysinit.target.wants/tests-agent.service')

    # ---- files, by their names in the tree

    def __truediv__(self, name):
        return self.path / name.lstrip('/')

    def write(self, name, text, mode=0o644):
        file = self / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def link(self, target, name):
        file = self / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(target)

    # ---- what is done to it

    def install_nbdd(self, *options):
        """As `scons install` lays it out on a system."""
        run(['scons', '-Q', '-s', 'PREFIX=/usr', 'SYSCONFDIR=/etc', f'DESTDIR={self.path}',
             *options, 'install'], cwd=ROOT, env={**os.environ, 'PATH': '/usr/bin:/bin'},
            timeout=600)

    def chroot(self, script, timeout=900):
        """Run a shell script with the tree as its root, /proc, /sys and /dev there."""
        mounts = ' && '.join(f'mount --rbind /{d} "$1"/{d}' for d in ('proc', 'sys', 'dev'))
        run(['unshare', '--mount', '--propagation', 'private', 'sh', '-ec',
             f'{mounts} && exec chroot "$1" sh -ec "$2"', '-', self.path, script],
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C'}, timeout=timeout)

    def initramfs(self):
        """By initramfs-tools."""
        self.chroot(f'mkinitramfs -o /boot/initramfs {self.version}')
        return self / '/boot/initramfs'

    def initramfs_of_theirs(self):
        """By the script for nbd-client that the distribution has, as this machine has it, and
        with nothing of ours but nbd-client."""
        at = '/usr/share/initramfs-tools'
        parts = {part: (self / f'{at}/{part}/nbdd').read_text()
                 for part in ('hooks', 'scripts/local-top')}
        for part in parts:
            shutil.copy(f'{at}/{part}/nbd', self / f'{at}/{part}/nbd')
            (self / f'{at}/{part}/nbdd').unlink()
        made = self.initramfs()
        for part, text in parts.items():
            (self / f'{at}/{part}/nbd').unlink()
            self.write(f'{at}/{part}/nbdd', text, 0o755)
        return made

    def dracut(self, module='nbdd', without='nbd'):
        self.chroot(f'dracut --force --no-hostonly --add "{module}" --zstd '
                    '--drivers "virtio_pci virtio_net virtio_rng virtio_blk af_packet" '
                    f'--omit "{without} plymouth lvm dm crypt multipath nfs iscsi fcoe fcoe-uefi"'
                    f' /boot/dracut {self.version}')
        return self / '/boot/dracut'

    def dracut_of_theirs(self):
        return self.dracut('nbd network-legacy', 'nbdd')

    @property
    def kernel(self):
        return self / f'/boot/vmlinuz-{self.version}'

    def ext4(self, image):
        """A disk image of it; kernels and initial filesystems stay outside."""
        run(['mke2fs', '-q', '-F', '-t', 'ext4', '-E', 'lazy_itable_init=0',
             '-d', self.path, image, IMAGE_SIZE])
        return image
