"""A guest whose PID 1 is systemd, with udev: fstab's lines on devices, the state of
nbd@.service, the links in /dev, and a shutdown in order."""
import os
import pathlib
import re
import socket
import struct
import subprocess
import tempfile
import time

import pytest

from tests.harness.guest import Slot, module_list, tied_to_us
from tests.harness.paths import BUILD, ROOT
from tests.harness.wait import Stopwatch, wait_until

pytestmark = pytest.mark.guest
HERE = ROOT / 'tests' / 'front'
SECONDS = 300           # for all of it, which takes 30 on an idle machine

NBDTAB = '''\
nbd0 127.0.0.1 data
nbd1 127.0.0.1 plain
nbd2 127.0.0.1 away port=10810
nbd3 127.0.0.1 swap
'''
CONF = '''\
[named]
uri = nbd://127.0.0.1/named
auto = no
[parts]
uri = nbd://127.0.0.1/parts
'''
FSTAB = '''\
/dev/nbd0 /run/m/data ext4 _netdev 0 0
/dev/nbd1 /run/m/plain ext4 defaults 0 0
/dev/disk/by-id/nbd-named /run/m/named ext4 _netdev,x-systemd.device-timeout=60s 0 0
/dev/nbd2 /run/m/away ext4 nofail,_netdev,x-systemd.device-timeout=3s 0 0
/dev/nbd3 none swap sw 0 0
'''
SERVER = '''\
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
[Service]
ExecStart=/usr/bin/nbdkit -f -i 127.0.0.1 -p %d file dir=/run/share/exports
KillSignal=SIGKILL
StandardError=append:/run/share/server.log
'''
UNITS = {
    'server.service': SERVER % 10809,
    'away.service': SERVER % 10810,
    # Only disks are of interest here; of everything else there is a lot.
    'systemd-udev-trigger.service': '''\
[Unit]
DefaultDependencies=no
Wants=systemd-udevd.service
After=systemd-udevd-kernel.socket systemd-udevd-control.socket
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/udevadm trigger --subsystem-match=block
''',
    'front.target': '''\
[Unit]
DefaultDependencies=no
Wants=systemd-udevd.service systemd-udev-trigger.service nbdd.socket server.service
Wants=local-fs.target remote-fs.target swap.target inside.service
''',
    'other.target': '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n',
    'inside.service': '''\
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
[Service]
Type=oneshot
Environment=TREE=%(tree)s BUILD=%(build)s
StandardOutput=file:/run/share/output
StandardError=inherit
ExecStart=/bin/sh %(tree)s/tests/front/systemd-inside
TimeoutStartSec=infinity
''' % {'tree': ROOT, 'build': BUILD},
}
LOG = '[Service]\nStandardError=append:/run/share/log\n'


def fill(share):
    """The files of the guest."""
    for name in ('units', 'udev', 'etc', 'exports'):
        (share / name).mkdir()
    for unit in (BUILD / 'systemd').iterdir():
        text = unit.read_text().replace('/usr/local/sbin', str(BUILD))
        (share / 'units' / unit.name).write_text(text + (LOG if 'service' in unit.name else ''))
    for name, text in UNITS.items():
        (share / 'units' / name).write_text(text)
    rules = (BUILD / 'udev' / '61-nbdd.rules').read_text()
    (share / 'udev' / '61-nbdd.rules').write_text(rules.replace('/usr/local/sbin', str(BUILD)))
    for name, text in (('nbdtab', NBDTAB), ('nbdd.conf', CONF), ('fstab', FSTAB)):
        (share / 'etc' / name).write_text(text)
    for name in ('data', 'plain', 'named', 'away', 'swap', 'parts'):
        (share / 'exports' / name).touch()
        os.truncate(share / 'exports' / name, 16 << 20)
    for name in ('data', 'plain', 'named', 'away'):
        subprocess.run(['mkfs.ext4', '-q', share / 'exports' / name], check=True)
    subprocess.run(['mkswap', share / 'exports' / 'swap'], check=True, capture_output=True)
    with open(share / 'exports' / 'parts', 'r+b') as f:     # one partition, of type Linux
        f.seek(446)
        f.write(struct.pack('<8BII', 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 4096))
        f.seek(510)
        f.write(b'\x55\xaa')


@pytest.fixture(scope='module')
def said():
    """What the guest said, and `off`: how long it took to power off."""
    with tempfile.TemporaryDirectory(prefix='nbdd-front.', dir='/tmp') as directory:
        share = pathlib.Path(directory)
        fill(share)
        (share / 'modules').write_text(module_list((), {'nbd': 'nbds_max=8 max_part=15'}))
        slot = Slot()
        try:
            yield boot(share)
        finally:
            slot.close()


def show_tasks(share):
    """Ask the guest's kernel to say on its console what waits in the kernel, and for its memory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(share / 'ask'))
        s.settimeout(5)
        for command in (b'sysrq 8', b'sysrq w', b'sysrq m'):
            try:        # struct mconsole_request of Linux's arch/um/drivers/mconsole.h
                s.sendto(struct.pack('=III512s', 0xcafebabe, 2, len(command), command),
                         str(share / 'uml' / 'mconsole'))
                s.recv(4096)
            except OSError as e:
                print(f'the guest does not answer: {e}')


def boot(share):
    with open(share / 'console', 'wb') as console:
        uml = subprocess.Popen(
            [*tied_to_us(), 'linux.uml', 'mem=384M', 'rootfstype=hostfs', 'rootflags=/', 'ro',
             f'init={HERE}/systemd-init', 'con=null', 'con0=null,fd:1', 'ssl=null', 'panic=-1',
             'quiet', 'loglevel=3', f'uml_dir={share}', 'umid=uml', f'SHARE={share}',
             f'TREE={ROOT}', f'BUILD={BUILD}'], stdin=subprocess.DEVNULL, stdout=console,
            stderr=console, env={**os.environ, 'TMPDIR': '/dev/shm'}, start_new_session=True)
    watch = Stopwatch()
    try:
        wait_until(lambda: uml.poll() is not None, SECONDS, 'the guest to end', 0.2)
    finally:
        if uml.poll() is None:
            show_tasks(share)
        uml.kill()
        uml.wait()
        for name in ('output', 'log', 'console'):
            if (share / name).exists():
                print(f'--- {name}', (share / name).read_text(errors='replace')[-20000:])
    said = dict(re.findall(r'^(\w+): (.*?) *$', (share / 'output').read_text(), re.M))
    off = time.time() - float((share / 'off').read_text())
    said['off'] = watch.quiet_part(max(off, 0))
    said['log'] = (share / 'log').read_text()
    said['waited'] = re.findall('waited in vain.*', (share / 'output').read_text())
    fsck = subprocess.run(['e2fsck', '-f', '-n', share / 'exports/data'], capture_output=True,
                          text=True)
    said['fsck'] = fsck.returncode, fsck.stdout
    said['end'] = subprocess.run(['debugfs', '-R', 'cat end', share / 'exports/data'],
                                 capture_output=True, text=True).stdout
    return said


def test_the_boot_mounts_what_is_there_and_does_not_wait_for_what_is_not(said):
    assert said['waited'] == []
    assert [said[k] for k in ('boot', 'plain', 'named', 'swap')] == ['yes', 'yes', 'yes',
                                                                     '/dev/nbd3']
    # Now and then an attempt gives up and the next one begins.
    assert said['away'] == 'no' and said['away_state'] in ('activating', 'deactivating')
    assert said['jobs_for_away'] == ''


def test_a_nofail_device_is_mounted_when_its_server_comes(said):
    assert (said['away_later'], said['away_later_state']) == ('yes', 'active')


def test_the_service_tells_the_state_of_its_device(said):
    assert said['state'] == 'active'
    assert said['status'] == '/dev/nbd0 is attached to nbd://127.0.0.1/data'
    assert 'Active: active (running)' in said['seen'] and said['seen'].endswith(' 0')
    assert 'Status: "/dev/nbd0 is attached to nbd://127.0.0.1/data"' in said['seen']
    assert 'Active: inactive (dead)' in said['stopped_seen']
    assert said['stopped_seen'].endswith(' 3')
    assert said['after_outage'] == 'by hand'


def test_metrics_are_written_for_the_node_exporter(said):
    assert (said['metrics'], said['metrics_mode']) == ('', 'nbdd:644')
    assert int(said['metrics_connected']) >= 4
    if os.path.isdir('/var/lib/prometheus'):
        assert said['metrics_link'] == '/run/nbdd-metrics/nbdd.prom'


def test_links_and_readiness(said):
    assert said['by_id'] == said['by_name'] and said['by_id'].startswith('/dev/nbd')
    assert re.fullmatch(r'\.\./\.\./nbd\d+p1', said['part'])
    assert said['ready'].split() == ['active', 'inactive']


def test_stop_unmounts_and_detaches_and_start_brings_all_back(said):
    assert (said['restart'], said['restarted']) == ('', 'yes')
    assert (said['stop'], said['stopped'], said['stopped_mounted']) == ('', 'inactive', 'no')
    assert (said['stopped_device'], said['stopped_ready']) == ('0', 'inactive')
    assert (said['start'], said['started'], said['content']) == ('', 'active', 'by hand')


def test_a_lost_device_is_a_failure_and_a_detached_one_is_not(said):
    assert sorted(said['lost'].split()) == ['9', 'exit-code', 'failed']
    assert 'named' not in said['lost_link']
    assert (said['detach'], said['detached']) == ('', 'inactive')


def test_isolate_leaves_devices_and_what_is_on_them(said):
    assert said['isolate'] == '' and said['isolated'].split() == ['active', 'active']
    assert said['daemon_after_isolate'] == 'active'


def test_shutdown_unmounts_then_detaches_and_loses_nothing(said):
    assert said['off'] < 60, 'a unit did not end when asked'
    assert said['end'] == 'at the end\n'
    status, text = said['fsck']
    assert status == 0, text
    log = said['log']
    assert 'nbd0: detached from /dev/nbd0' in log[log.rindex('attached as /dev/nbd0'):]
