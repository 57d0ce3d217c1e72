"""A Debian whose root is on NBD over TLS."""
import re

import pytest

from tests.boot.debian import booted, end_well, outage, start_writing, status

pytestmark = [pytest.mark.boot, pytest.mark.soak]


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
        before = connections(host)
        end_well(vm)
    after = connections(host)
    print(f'connections: {max(before)} before the shutdown, {max(after)} after it')
    if kernel_tls == 'off':     # what was written last went by a relay that began at the end
        assert max(after) > max(before) and after[max(after)]


def connections(host):
    """{number: what was written and flushed over it} of the connections to the root's server
    since its last start."""
    found = {}
    for line in (host.path / 'root.log').read_text().splitlines():
        m = re.search(r'connection=(\d+) (Connect|Write|Flush)', line)
        if m and m[2] == 'Connect':
            found[int(m[1])] = []
        elif m:
            found[int(m[1])].append(m[2])
    return found
