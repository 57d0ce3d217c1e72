"""A Debian whose root is on NBD boots, outlives its server's restarts, and ends cleanly."""
import json

import pytest

from tests.boot.debian import (
    booted, daemon, end_well, outage, runs_as_root, start_writing, state, status, upgrade)
from tests.boot.vm import HOST

pytestmark = pytest.mark.boot

INITRAMFS = ('initramfs', 'root=/dev/nbd0 nbdroot={at}/')
DRACUT = ('dracut', 'root=nbd://{at}/ rootfstype=ext4 rd.shell=0')


def live_through(vm, server, last):
    """Three outages, the last of LAST seconds, and an upgrade, while files are written."""
    start_writing(vm)
    assert state(vm) == 'connected'
    outage(vm, server, 5)
    runs_as_root(vm)
    upgrade(vm)
    runs_as_root(vm)
    outage(vm, server, 1)
    outage(vm, server, last)
    [s] = json.loads(status(vm))
    assert (s['device'], s['state'], s['outages']['count']) == ('/dev/nbd0', 'connected', 3)
    assert s['uri'].startswith(f'nbd://{HOST}:{server.port}/')
    assert s['outages']['last']['duration_usec'] >= last * 1e6
    end_well(vm)


def test_a_root_by_initramfs_tools_survives_its_server_and_an_upgrade(host, debian):
    with booted(host, debian, *INITRAMFS) as (vm, server):
        live_through(vm, server, 2)


@pytest.mark.soak
@pytest.mark.parametrize('how', [INITRAMFS, DRACUT], ids=['initramfs-tools', 'dracut'])
def test_a_root_survives_a_minute_without_its_server(host, debian, how):
    with booted(host, debian, *how) as (vm, server):
        live_through(vm, server, 60)


@pytest.mark.soak
def test_a_root_by_the_distributions_own_module_of_dracut(host, debian):
    """It has nbd-client alone of ours; the daemon in that calls the device by its name."""
    with booted(host, debian, 'dracut_of_theirs',
                'root=nbd:{at}:ext4 rd.shell=0') as (vm, server):
        start_writing(vm)
        daemon(vm)
        outage(vm, server, 5, 'nbd0')
        end_well(vm)
