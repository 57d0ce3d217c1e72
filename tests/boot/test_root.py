"""A Debian whose root is on NBD boots, outlives its server's restarts, and ends cleanly."""
import pytest

from tests.boot.debian import booted, daemons, end_well, outage, start_writing, state
from tests.harness.wait import wait_until

pytestmark = [pytest.mark.boot, pytest.mark.soak]


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
