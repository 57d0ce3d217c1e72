"""Running the distribution's unmodified programs on the library that was built."""
import os
import random
import subprocess

from tests.harness.paths import BUILD
from tests.harness.servers import Nbdkit, QemuNbd

SIZE = 4 << 20
PIECE = 256 << 10
# The environment for our library, and for the distribution's own.
THEIRS = {k: v for k, v in os.environ.items()
          if k not in ('LD_LIBRARY_PATH', 'LIBNBD_DEBUG', 'PYTHONPATH', 'PYTHONHOME')}
THEIRS |= {'PATH': '/usr/bin:/bin:/usr/sbin:/sbin', 'LC_ALL': 'C.UTF-8'}
OURS = THEIRS | {'LD_LIBRARY_PATH': str(BUILD)}
BOTH = {'ours': OURS, 'theirs': THEIRS}


def run(argv, env=None, check=True, timeout=60, **how):
    """The finished process: returncode, stdout, stderr as text."""
    how.setdefault('stdin', subprocess.DEVNULL)
    r = subprocess.run([str(a) for a in argv], env=env or OURS, capture_output=True, text=True,
                       errors='replace', timeout=timeout, **how)
    assert not check or r.returncode == 0, (r.args, r.returncode, r.stdout, r.stderr)
    return r


def content():
    """Bytes of which every third piece is a hole."""
    r = random.Random(7)
    return b''.join(bytes(PIECE) if i % 3 == 1 else r.randbytes(PIECE)
                    for i in range(SIZE // PIECE))


def sparse_file(path):
    """A file of content() in which the holes are holes."""
    data = content()
    with open(path, 'wb') as f:
        f.truncate(SIZE)
        for at in range(0, SIZE, PIECE):
            if any(data[at:at + PIECE]):
                f.seek(at)
                f.write(data[at:at + PIECE])
    return path


def qcow2(host):
    """A qcow2 image of 1 MiB with a bitmap in which two clusters are dirty."""
    path = host.path / 'disk.qcow2'
    host.sh(f'''qemu-img create -q -f qcow2 {path} 1M
        qemu-img bitmap --add --enable -f qcow2 {path} dirty
        qemu-io -f qcow2 -c 'w -P 1 64k 64k' -c 'w -P 2 512k 64k' {path}''')
    return path


def servers(host):
    """{name: server}, not started: of the kinds that the programs meet."""
    return {
        'memory': Nbdkit(host, ['memory', '8M']),
        'tcp': Nbdkit(host, ['pattern', '8M'], tcp=True),
        'sparse': Nbdkit(host, ['file', sparse_file(host.path / 'sparse')]),
        'read-only': Nbdkit(host, ['memory', '1M'], options=['-r']),
        'rotational': Nbdkit(host, ['eval', 'get_size=echo 1M', 'is_rotational=exit 0',
                                    'pread=dd if=/dev/zero count=$3 iflag=count_bytes']),
        'names': Nbdkit(host, ['memory', '1M', 'exportname=a', 'exportname=b c',
                               'exportname-list=explicit', 'exportdesc=fixed:some text'],
                        options=['--filter=exportname']),
        'sizes': Nbdkit(host, ['memory', '8M', 'blocksize-minimum=4096',
                               'blocksize-preferred=65536', 'blocksize-maximum=1M'],
                        options=['--filter=blocksize-policy']),
        'simple': Nbdkit(host, ['memory', '1M'], options=['--no-sr']),
        'oldstyle': Nbdkit(host, ['memory', '1M'], options=['-o']),
        'qemu': QemuNbd(host, qcow2(host), format='qcow2', export='disk',
                        options=['-B', 'dirty', '-A', '-D', 'a disk']),
    }
