"""nbdd.service: what systemd thinks of it, and that nbdd can do its work in it."""
import os
import pathlib
import re
import subprocess
import tempfile

import pytest

from tests.harness.guest import Slot, module_list, tied_to_us
from tests.harness.paths import BUILD, ROOT
from tests.harness.wait import wait_until

HERE = ROOT / 'tests' / 'power'

# What `systemd-analyze security` would like to see switched off, and why it is not.
NEEDED = {
    'PrivateNetwork=': 'the nbd driver answers in the first network namespace alone',
    'RestrictAddressFamilies=~AF_UNIX': 'control socket, connections that it is given',
    'RestrictAddressFamilies=~AF_NETLINK': 'the nbd driver',
    'PrivateUsers=': 'the nbd driver asks for rights in the first user namespace',
    'AmbientCapabilities=': 'what a user has; nbdd hands none on',
    'CapabilityBoundingSet=~CAP_SYS_ADMIN': 'the nbd driver',
    'SystemCallFilter=~@privileged': 'capset: nbdd and its children give up what they have',
    'CapabilityBoundingSet=~CAP_(DAC_*|FOWNER|IPC_OWNER)': 'keys and sockets of any owner',
    'CapabilityBoundingSet=~CAP_NET_ADMIN': 'to end a connection that a crashed nbdd left',
    'ProcSubset=': 'the identity of the boot',
    'CapabilityBoundingSet=~CAP_SYS_(NICE|RESOURCE)': 'PR_SET_IO_FLUSHER',
    'PrivateDevices=': '/dev/nbdN',
    'DeviceAllow=': 'the same',
}
EXPOSURE_MAX = 2.0


@pytest.fixture
def unit():
    """nbdd.service with the programs of this build, beside the others, in a directory with a
    short name."""
    with tempfile.TemporaryDirectory(prefix='nbdd-unit.', dir='/tmp') as directory:
        units = pathlib.Path(directory) / 'units'
        units.mkdir()
        for built in (BUILD / 'systemd').iterdir():
            text = built.read_text().replace('/usr/local/sbin', str(BUILD))
            (units / built.name).write_text(text)
        yield units / 'nbdd.service'


def analyze(*arguments):
    return subprocess.run(['systemd-analyze', *arguments], capture_output=True, text=True,
                          env={**os.environ, 'SYSTEMD_COLORS': '0', 'COLUMNS': '200'})


def test_systemd_finds_no_fault_with_the_unit(unit):
    r = analyze('verify', '--man=no', str(unit))
    ours = [line for line in r.stderr.splitlines() if 'nbdd' in line]
    assert r.returncode == 0 and not ours, r.stderr
    bad = unit.with_name('bad.service')
    bad.write_text(unit.read_text().replace('ProtectClock=yes', 'ProtectTime=yes'))
    assert 'ProtectTime' in analyze('verify', '--man=no', str(bad)).stderr


def test_the_unit_leaves_nothing_open_without_a_reason(unit):
    r = analyze('security', '--offline=true', '--no-pager', str(unit))
    found = set(re.findall(r'^✗ (\S+)', r.stdout, re.M))
    assert found == set(NEEDED), found ^ set(NEEDED)
    exposure = re.search(r'exposure level .*: ([\d.]+)', r.stdout).group(1)
    assert float(exposure) <= EXPOSURE_MAX, exposure


@pytest.mark.parametrize('file', ['nbdd-root.conf', 'nbdd-connect.service.in'])
def test_what_makes_connections_may_hide_files_from_them(file):
    """systemd before 253 has no landlock_* among @system-service."""
    text = (ROOT / 'contrib/systemd' / file).read_text()
    allowed = ' '.join(re.findall(r'^SystemCallFilter=([^~\n].*)$', text, re.M)).split()
    assert {'landlock_create_ruleset', 'landlock_restrict_self', 'seccomp'} <= set(allowed)


# The services whom an nbdd that is not root asks: what is left, and the most that it may come to.
SERVERS = {'PrivateNetwork=', 'RestrictAddressFamilies=~AF_(INET|INET6)',
           'RestrictAddressFamilies=~AF_UNIX', 'RestrictAddressFamilies=~…', 'IPAddressDeny=',
           'PrivateUsers=', 'DeviceAllow=', 'SystemCallFilter=~@privileged'}
SERVICES = {
    # Root, to become others; its programs are the administrator's.
    'programs': (SERVERS | {
        'RestrictAddressFamilies=~AF_NETLINK', 'User=/DynamicUser=',
        'CapabilityBoundingSet=~CAP_SET(UID|GID|PCAP)', 'CapabilityBoundingSet=~CAP_KILL',
        'ProcSubset=', 'PrivateDevices='}, 2.6),
    # PR_SET_IO_FLUSHER, once at the start, and capset to give that up; PrivateUsers= would take
    # it, and hide who asks.
    'connect': (SERVERS | {'CapabilityBoundingSet=~CAP_SYS_(NICE|RESOURCE)',
                           'AmbientCapabilities='}, 1.8),
}


@pytest.mark.parametrize('name', SERVICES)
def test_the_units_of_a_service_have_no_fault_and_what_they_need(tmp_path, name):
    needed, most = SERVICES[name]
    for file in (f'nbdd-{name}.service', f'nbdd-{name}.socket'):
        text = (BUILD / 'systemd' / file).read_text()
        (tmp_path / file).write_text(text.replace('/usr/local/sbin', str(BUILD)))
    r = analyze('verify', '--man=no', *map(str, tmp_path.iterdir()))
    assert r.returncode == 0 and 'nbdd' not in r.stderr, r.stderr
    r = analyze('security', '--offline=true', '--no-pager', str(tmp_path / f'nbdd-{name}.service'))
    found = set(re.findall(r'^✗ (\S+)', r.stdout, re.M))
    assert found == needed, found ^ needed
    assert float(re.search(r'exposure level .*: ([\d.]+)', r.stdout).group(1)) <= most


CONF = '''\
[x]
uri = nbd://127.0.0.1/x
device = /dev/nbd0
auto = no
on-event = /run/event
[t]
uri = nbds://me@127.0.0.1:10810/
device = /dev/nbd1
auto = no
tls-psk-file = /run/psk
kernel-tls = off
'''
EVENT = '#!/bin/sh\necho "$NBDD_EVENT $(id -u)" >>/run/events/seen\n'


def capabilities(line):
    """The numbers of those in a line of /proc/PID/status."""
    mask = int(line.split()[1], 16)
    return {n for n in range(64) if mask >> n & 1}


@pytest.mark.guest
def test_nbdd_works_under_its_unit_and_devices_outlive_it(unit):
    share = unit.parent.parent
    (share / 'nbdd.conf').write_text(CONF)
    (share / 'event').write_text(EVENT)
    (share / 'modules').write_text(module_list((), {}))
    slot = Slot()
    try:
        with open(share / 'console', 'wb') as console:
            uml = subprocess.Popen(
                [*tied_to_us(), 'linux.uml', 'mem=384M', 'rootfstype=hostfs', 'rootflags=/',
                 'ro', f'init={HERE}/systemd-init', 'con=null', 'con0=null,fd:1', 'ssl=null',
                 'panic=-1', 'quiet', 'loglevel=3', f'uml_dir={share}', 'umid=uml',
                 f'SHARE={share}', f'TREE={ROOT}', f'BUILD={BUILD}'],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                env={**os.environ, 'TMPDIR': '/dev/shm'}, start_new_session=True)
        try:
            wait_until(lambda: uml.poll() is not None, 240, 'the guest to end')
        finally:
            uml.kill()
            uml.wait()
    finally:
        slot.close()
    text = (share / 'output').read_text() if (share / 'output').exists() else ''
    said = dict(re.findall(r'^(\w+): (.*?) *$', text, re.M))
    print(text, (share / 'console').read_text(errors='replace')[-3000:])
    # Nothing is wrong with a device at any time.
    for name in ('written', 'back', 'reload', 'restart', 'restarted', 'after_kill',
                 'read_after_stop', 'started', 'after_hand', 'to_root', 'as_root', 'root_back',
                 'root_after_kill', 'user_again'):
        assert said[name] == '', name
    assert (said['attached'], said['relayed']) == ('/dev/nbd0', '/dev/nbd1')
    assert said['allowed'] == '0' != said['denied']
    assert said['queue'] == '300'
    assert 'is opened by' in said['held']
    assert said['user'].split()[1:] == ['902'] * 4
    assert said['relay_user'].split()[1:] == ['901'] * 4
    assert {int(word, 16) for word in said['others'].split()[1::2]} == {0}
    assert capabilities(said['permitted']) == {1, 2, 12, 21}        # as SECURITY.md names them
    assert capabilities(said['bounding']) == {1, 2, 12, 21, 24}
    assert said['seccomp'].split() == ['Seccomp:', '2'] and said['oom'] == '-1000'
    assert int(said['locked'].split()[1]) > 8000
    assert 'reconnected 901' in said['program']
    assert said['relay_stayed'] == 'yes'
    assert said['restarts'] == '1'
    assert said['size_after_kill'] == said['size_after_stop'] == str(64 << 11)
    assert said['state'] == 'success'
    assert said['by_hand'] == '0'
    assert said['root'].split()[1:] == ['0'] * 4
    for name in ('daemon_in_roots', 'daemon_in_roots_again'):
        assert 'Read-only file system' in said[name]
    assert said['root_in_roots'] == '' and said['owner'] == 'nbdd-daemon root'
