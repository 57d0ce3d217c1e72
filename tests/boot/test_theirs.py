"""The distribution's own scripts and unit for nbd-client, unchanged, find ours."""
import pathlib
import re

import pytest

from tests.boot.debian import (
    booted, daemon, end_well, outage, start_writing, state, status)
from tests.boot.image import run
from tests.boot.vm import HOST
from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until

pytestmark = [pytest.mark.boot, pytest.mark.soak]

UNIT = pathlib.Path('/lib/systemd/system/nbd@.service')
FSTAB = '/dev/nbd1 /srv ext4 noauto,_netdev,x-systemd.requires=nbd@nbd1.service 0 2\n'


def test_a_root_by_initramfs_tools_and_a_disk_by_their_unit(host, debian):
    """nbd-client's own hook and script, with nothing of nbdd-boot; then a line is added to
    nbdtab, and nbd@.service used as its manual says."""
    run(['mke2fs', '-q', '-F', '-t', 'ext4', host.path / 'data', '64M'])
    change = [('/etc/systemd/system/nbd@.service', UNIT.read_text())]
    with Nbdkit(host, ['file', str(host.path / 'data')], tcp=True) as data, booted(
            host, debian, 'initramfs_of_theirs', 'root=/dev/nbd0 nbdroot={at}/root',
            change=change) as (vm, server):
        start_writing(vm)
        daemon(vm)
        assert re.search(r'"export": ?"root"|"uri": ?"[^"]*/root"', status(vm, '/dev/nbd0'))
        outage(vm, server, 5, '/dev/nbd0')
        by_their_unit(vm, data)
        end_well(vm)


def is_connected(vm, device):
    """What nbd-client -c says: 0 or 1."""
    return {0: True, 1: False}[vm.try_sh(f'nbd-client -c {device} >/dev/null')[0]]


def by_their_unit(vm, data):
    vm.sh(f'echo nbd1 {HOST} data port={data.port} >>/etc/nbdtab')
    vm.sh(f'printf "%s" "{FSTAB.strip()}" >>/etc/fstab; echo >>/etc/fstab')
    assert not is_connected(vm, 'nbd1')
    vm.sh('systemctl daemon-reload; systemctl start nbd@nbd1', 120)
    assert vm.sh('systemctl show -P FragmentPath nbd@nbd1') == \
        '/etc/systemd/system/nbd@.service\n'
    assert 'ExecStart=//sbin/nbd-client %i' in vm.sh('systemctl cat nbd@nbd1')
    assert vm.sh('systemctl is-active nbd@nbd1') == 'active\n'
    assert 'code=exited, status=0/SUCCESS' in vm.sh('systemctl status nbd@nbd1')
    assert is_connected(vm, 'nbd1')
    vm.sh('systemctl stop nbd@nbd1', 120)
    assert vm.try_sh('systemctl is-active nbd@nbd1') == (3, 'inactive\n')
    wait_until(lambda: not is_connected(vm, 'nbd1'), 20, 'the device to be free')
    # By fstab, over a restart of its server, and unmounted before it goes.
    vm.sh('systemctl start srv.mount', 120)
    assert is_connected(vm, 'nbd1')
    data.restart()
    vm.sh('echo x >/srv/x; sync /srv/x')
    wait_until(lambda: state(vm, '/dev/nbd1') == 'connected', 60, 'the disk to be back')
    vm.sh('systemctl stop nbd@nbd1', 120)
    assert ' /srv ' not in vm.sh('cat /proc/mounts')
    wait_until(lambda: not is_connected(vm, 'nbd1'), 20, 'the device to be free')
