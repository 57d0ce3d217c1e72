"""What the tests of a device share: a served file, a mounted filesystem on it."""
import contextlib
import json

from tests.harness.servers import Nbdkit, QemuNbd

DISK_MB = 96
# For each connection.  With several, one may find the connection closed by another when it is
# cut in the middle of requests, and nbdkit 1.32 aborts (raw_send_socket: sock >= 0).
ONE_THREAD = ['--threads=1']
# Of several connections the kernel gives up each on which a request takes longer than the
# requeue-interval, and on a loaded machine one may take seconds.  After that time, and about
# a second of the kernel's own, it sends again what was in flight on a lost connection.
TWO_SECONDS = 5
TWO = {'connections': 2, 'requeue_interval': f'{TWO_SECONDS}s'}


def file_server(guest, name='disk', megabytes=DISK_MB, options=(), **address):
    """nbdkit with a file in the guest's memory, which outlives the server.  On TCP, since
    that is where links die in all the ways there are."""
    path = f'/tmp/{name}'
    options = [*ONE_THREAD, *options]
    guest.run(['truncate', '-s', f'{megabytes}M', path])
    return Nbdkit(guest, ['file', path], tcp='socket' not in address, options=options, **address)


def stoppable_server(guest, name):
    """qemu-nbd with such a file: asked to end, it just closes.  nbdkit answers what it still
    finds with NBD_ESHUTDOWN, and the kernel makes an I/O error of each such answer."""
    guest.run(['truncate', '-s', f'{DISK_MB}M', f'/tmp/{name}'])
    return QemuNbd(guest, f'/tmp/{name}', tcp=True)


def twin_servers(guest, name, n=2):
    """So many of these with the same file, as a cluster would have it."""
    guest.run(['truncate', '-s', f'{DISK_MB}M', f'/tmp/{name}'])
    image = json.dumps({'driver': 'raw', 'file': {'driver': 'file', 'filename': f'/tmp/{name}',
                                                  'locking': 'off'}})
    return [QemuNbd(guest, f'json:{image}', tcp=True) for _ in range(n)]


@contextlib.contextmanager
def mounted(guest, device, name='a'):
    """A fresh ext4 on DEVICE, mounted; unmounted and found clean by fsck at the end."""
    at = f'/mnt/{name}'
    guest.run(['mkfs.ext4', '-q', '-F', device], timeout=60)
    guest.sh(f'mkdir -p {at}; mount {device} {at}')
    try:
        yield at
    except BaseException:
        guest.spawn(['umount', '-l', at])       # it ends when the writers and the device have
        raise
    guest.run(['umount', at], timeout=60)
    guest.run(['e2fsck', '-fn', device], timeout=60)
