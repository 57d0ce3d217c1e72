"""nbdd-generator: what systemd makes of its units, together with those that systemd's own
generator makes of the same fstab."""
import pytest

from tests.front.units import Units
from tests.harness.paths import ROOT


@pytest.fixture
def units(tmp_path):
    made = []

    def make(**files):
        made.append(Units(tmp_path / f'units{len(made)}', **files))
        return made[-1]
    return make


TARGETS = ('local-fs.target', 'swap.target', 'sysinit.target', 'remote-fs-pre.target',
           'remote-fs.target', 'multi-user.target', 'shutdown.target')


def sound(u, *more):
    """systemd loads them all, and can start them, without a word: no cycle, no mistake."""
    r = u.verify('nbdd.service', 'nbdd.socket', 'nbd@nbd0.service', *TARGETS, *more)
    said = [line for line in (r.stdout + r.stderr).splitlines()
            if 'nbd' in line or 'cycle' in line or str(u.path) in line]
    assert r.returncode == 0 and not said, said


def test_the_units_themselves_are_sound(units):
    u = units(nbdtab='nbd0 h a\n')
    sound(u)
    assert u.files() == set(), 'nothing was asked for'
    service = u.facts('nbd@nbd0.service')
    assert {'nbdd.service', 'nbdd.socket', 'network-online.target'} <= service['After']
    assert {'nbdd.service', 'network-online.target'} <= service['Wants']
    assert service['Before'] == {'shutdown.target'} == service['Conflicts']
    assert service['IgnoreOnIsolate'] == {'yes'} == u.facts('nbdd.service')['IgnoreOnIsolate']
    assert service['Restart'] == {'on-failure'}


def test_a_mount_brings_its_device_and_leaves_it_before_it_goes(units):
    u = units(nbdtab='nbd0 h a\n', fstab='/dev/nbd0 /data ext4 _netdev 0 2\n')
    sound(u, 'data.mount')
    assert u.problems == ''
    mount, device = u.facts('data.mount'), u.facts('dev-nbd0.device')
    assert {'nbd@nbd0.service', 'dev-nbd0.device', 'remote-fs-pre.target'} <= mount['After']
    assert 'nbd@nbd0.service' in mount['Requires']
    assert {'nbd@nbd0.service', 'data.mount'} <= device['Wants']
    assert 'remote-fs-pre.target' in u.facts('nbd@nbd0.service')['Before']
    assert 'data.mount' in u.facts('remote-fs.target')['Requires']
    assert 'data.mount' not in u.facts('local-fs.target')['After']


@pytest.mark.parametrize('what', ['/dev/nbd3', '/dev/nbd3p2', '/dev/disk/by-id/nbd-data',
                                  '/dev/nbd/by-name/data', '/dev/nbd/by-name/data-part1'])
def test_every_name_of_a_device_is_known(units, what):
    u = units(conf='[data]\nuri = nbd://h/x\ndevice = /dev/nbd3\nauto = no\n',
              fstab=f'{what} /data ext4 _netdev 0 0\n')
    assert 'nbd@nbd3.service' in u.facts('data.mount')['Requires']
    device = what.strip('/').replace('-', '\\x2d').replace('/', '-') + '.device'
    assert 'nbd@nbd3.service' in u.facts(device)['Wants']


@pytest.mark.parametrize('what', ['/dev/nbd33', '/dev/nbd3x', '/dev/nbd3p', '/dev/nbd/by-name/dat',
                                  '/dev/disk/by-id/nbd-data-2', 'UUID=1', '/dev/sda1'])
def test_what_is_not_ours_is_left_alone(units, what):
    u = units(conf='[data]\nuri = nbd://h/x\ndevice = /dev/nbd3\nauto = no\n',
              fstab=f'{what} /data ext4 _netdev 0 0\n')
    assert u.files() == set()


def test_a_device_without_a_number_goes_by_its_name(units):
    u = units(conf='[data-1]\nuri = nbd://h/x\n',
              fstab='/dev/disk/by-id/nbd-data-1 /data ext4 _netdev 0 0\n')
    sound(u, 'nbd@data-1.service')
    assert 'nbd@data-1.service' in u.facts('data.mount')['Requires']
    assert u.facts('nbd@data-1.service')['Instance'] == {'data-1'}


def test_nofail_keeps_nobody_waiting_longer_than_it_says(units):
    u = units(nbdtab='nbd0 h a\n',
              fstab='/dev/nbd0 /data ext4 nofail,_netdev,x-systemd.device-timeout=20s 0 2\n')
    sound(u, 'data.mount')
    service = u.facts('nbd@nbd0.service')
    assert 'remote-fs-pre.target' not in service['Before']
    assert service['TimeoutStartSec'] == {'20s'}
    assert 'data.mount' not in u.facts('remote-fs.target').get('Requires', ())
    # It is mounted when the server comes back after that.
    assert 'data.mount' in u.facts('dev-nbd0.device')['Wants']


def test_a_longer_limit_holds_for_the_service_too(units):
    u = units(nbdtab='nbd0 h a\nnbd1 h b\n', fstab='''\
/dev/nbd0p1 /one ext4 _netdev,x-systemd.device-timeout=5min 0 0
/dev/nbd0p2 /two ext4 _netdev 0 0
/dev/nbd1 /three ext4 _netdev,x-systemd.device-timeout=0 0 0
''')
    assert u.facts('nbd@nbd0.service')['TimeoutStartSec'] == {'5min'}
    assert u.facts('nbd@nbd1.service')['TimeoutStartSec'] == {'infinity'}


def test_noauto_is_attached_when_it_is_mounted_and_not_before(units):
    u = units(nbdtab='nbd0 h a\n', fstab='/dev/nbd0 /data ext4 noauto,_netdev 0 0\n')
    sound(u, 'data.mount')
    assert 'WantedBy' not in u.facts('data.mount')
    assert u.facts('dev-nbd0.device')['Wants'] >= {'nbd@nbd0.service'}
    assert 'data.mount' not in u.facts('dev-nbd0.device')['Wants']
    assert 'remote-fs-pre.target' not in u.facts('nbd@nbd0.service')['Before']


def test_an_automount_needs_no_device_until_it_is_looked_at(units):
    u = units(nbdtab='nbd0 h a\n',
              fstab='/dev/nbd0 /data ext4 _netdev,x-systemd.automount 0 0\n')
    sound(u, 'data.automount', 'data.mount')
    assert 'data.mount' not in u.facts('dev-nbd0.device')['Wants']
    assert 'nbd@nbd0.service' in u.facts('data.mount')['Requires']
    assert 'remote-fs-pre.target' not in u.facts('nbd@nbd0.service')['Before']


@pytest.mark.parametrize('options', ['sw', '_netdev', 'defaults,pri=5', 'nofail'])
def test_swap_does_not_keep_the_boot_from_reaching_the_network(units, options):
    u = units(nbdtab='nbd0 h a\n', fstab=f'/dev/nbd0 none swap {options} 0 0\n')
    sound(u, 'dev-nbd0.swap')
    swap = u.facts('dev-nbd0.swap')
    assert 'swap.target' not in swap.get('Before', ())
    assert 'dev-nbd0.swap' not in u.facts('swap.target').get('After', ())
    assert swap['DefaultDependencies'] == {'no'}
    assert 'umount.target' in swap['Conflicts'] & swap['Before']
    assert 'nbd@nbd0.service' in swap['After'] & swap['Requires']
    assert 'dev-nbd0.swap' in u.facts('remote-fs.target')['Wants']
    assert ('remote-fs.target' in swap['Before']) != ('nofail' in options)


@pytest.mark.parametrize('options, kind', [('defaults', 'Requires'), ('nofail', 'Wants'),
                                           ('noauto', None)])
def test_a_mount_without_netdev_is_a_remote_one_all_the_same(units, options, kind):
    u = units(nbdtab='nbd0 h a\n', fstab=f'/dev/nbd0 /my\\040data ext4 {options} 0 2\n')
    assert 'should have the option _netdev' in u.problems
    name = 'my\\x20data.mount'
    sound(u, name)
    mount = u.facts(name)
    assert mount['Where'] == {'/my data'} and mount['What'] == {'/dev/nbd0'}
    assert mount['Options'] == {f'{options},_netdev'}
    assert {'remote-fs-pre.target', 'network-online.target', 'nbd@nbd0.service',
            'systemd-fsck@dev-nbd0.service'} <= mount['After']
    assert 'local-fs.target' not in mount['Before']
    assert 'network-online.target' in u.facts('dev-nbd0.device')['After']
    assert name not in u.facts('local-fs.target')['After']
    assert name not in u.facts('local-fs.target').get('Requires', set())
    targets = u.facts('remote-fs.target')
    assert [k for k in ('Requires', 'Wants') if name in targets.get(k, ())] == \
        ([kind] if kind else [])


def test_a_mount_without_netdev_keeps_the_dependencies_that_it_asks_for(units):
    u = units(nbdtab='nbd0 h a\n', fstab='/dev/nbd0 /data ext4 x-systemd.requires=/dev/sdx1,'
              'x-systemd.requires=a.service,x-systemd.after=/srv/x-y,x-systemd.before=b.service,'
              'x-systemd.after=c,x-systemd.after=d%n.service,'
              'x-systemd.requires-mounts-for=/p%n\\040q,x-systemd.wanted-by=nbdd.service,'
              'x-systemd.required-by=multi-user.target 0 0\n')
    assert 'should have the option _netdev' in u.problems
    mount = u.facts('data.mount')
    wanted = {'dev-sdx1.device', 'a.service'}
    assert wanted <= mount['Requires'] and not [name for name in mount['After'] if 'd%' in name]
    assert wanted | {'srv-x\\x2dy.mount', 'c.mount', 'nbd@nbd0.service'} <= mount['After']
    assert 'b.service' in mount['Before'] and '/p%n q' in mount['RequiresMountsFor']
    assert 'data.mount' in u.facts('nbdd.service')['Wants']
    assert 'data.mount' in u.facts('multi-user.target')['Requires']
    for target in ('remote-fs.target', 'local-fs.target'):
        assert 'data.mount' not in u.facts(target).get('Requires', ())


def test_automatic_devices_are_attached_and_nobody_waits_for_them(units):
    u = units(nbdtab='nbd0 h a auto\nnbd1 h b\n', conf='[data]\nuri = nbd://h/x\n')
    sound(u)
    remote = u.facts('remote-fs.target')
    assert {'nbd@nbd0.service', 'nbd@data.service'} <= remote['Wants']
    assert 'nbd@nbd1.service' not in remote['Wants']
    assert 'nbd@nbd0.service' not in remote['After']


def test_the_root_device_is_left_alone(units):
    u = units(nbdtab='nbd0 h a auto\nnbd1 h b auto\n', root='nbd0', fstab='''\
/dev/nbd0p1 / ext4 defaults 0 1
/dev/nbd0p2 /boot ext4 defaults 0 2
/dev/nbd1 /data ext4 _netdev 0 2
''')
    assert not [f for f in u.files() if 'nbd0' in f]
    assert 'nbd@nbd0.service' not in u.facts('remote-fs.target')['Wants']
    assert 'nbd@nbd1.service' in u.facts('data.mount')['Requires']


def test_nbdd_is_root_where_the_system_is_on_its_device(units, tmp_path):
    """Whatever is between: the root is on LVM on LUKS on a partition here."""
    sys = tmp_path / 'sys'
    for path in ('virtual/block/nbd0/nbd0p1', 'virtual/block/dm-0/slaves', 'pci/block/sda/sda1',
                 'virtual/block/dm-1/slaves', 'virtual/block/dm-2/slaves', 'virtual/block/nbdx'):
        (sys / 'devices' / path).mkdir(parents=True)
    devices = sys / 'devices/virtual/block'
    for partition in (devices / 'nbd0/nbd0p1', sys / 'devices/pci/block/sda/sda1'):
        (partition / 'partition').write_text('1')
    (devices / 'dm-0/slaves/nbd0p1').symlink_to(devices / 'nbd0/nbd0p1')
    (devices / 'dm-1/slaves/dm-0').symlink_to(devices / 'dm-0')
    (devices / 'dm-2/slaves/sda1').symlink_to(sys / 'devices/pci/block/sda/sda1')
    (devices / 'dm-2/slaves/dm-2').symlink_to(devices / 'dm-2')
    (sys / 'dev/block').mkdir(parents=True)
    for number, to in (('43:1', 'virtual/block/nbd0/nbd0p1'), ('253:1', 'virtual/block/dm-1'),
                       ('253:2', 'virtual/block/dm-2'), ('8:1', 'pci/block/sda/sda1'),
                       ('9:9', 'virtual/block/nbdx')):
        (sys / 'dev/block' / number).symlink_to(sys / 'devices' / to)
    (tmp_path / 'mark').touch()

    def made(device, mark='none'):
        u = units(options=[f'--sys={sys}', f'--root-device={device}',
                           f'--mark={tmp_path}/{mark}'], conf='[broken\n')
        return u.files()
    dropin = {'normal/nbdd.service.d/nbdd-root.conf'}
    for device in ('43:1', '253:1'):        # what it is made of is left alone
        u = units(options=[f'--sys={sys}', f'--root-device={device}'], fstab='/dev/nbd0 /a ext4 _netdev',
                  nbdtab='nbd0 h a auto\nnbd1 h b auto\n')
        assert u.files() == dropin | {'normal/remote-fs.target.wants/nbd@nbd1.service'}
    assert made('43:1') == made('253:1') == dropin
    assert made('8:1') == made('253:2') == made('9:9') == made('1:1') == set()
    assert made('8:1', 'mark') == dropin
    assert units(root='nbd0').files() == dropin


def test_the_drop_in_for_a_system_on_its_device_is_sound(units):
    u = units(options=['--root-device=0:0'])
    (u.path / 'ours/nbdd.service.d').mkdir()
    dropin = (ROOT / 'contrib/systemd/nbdd-root.conf').read_text()
    (u.path / 'ours/nbdd.service.d/nbdd-root.conf').write_text(dropin)
    sound(u)
    assert u.facts('nbdd.service')['User'] == {'root'}
    assert 'AmbientCapabilities' not in u.facts('nbdd.service')


def test_broken_and_missing_files_do_not_keep_the_rest_from_its_units(units):
    u = units(nbdtab='nbd0 h a\ngarbage\nnbd1 h\n', conf='[broken\n',
              fstab='/dev/nbd0 /data ext4 _netdev 0 0\n/dev/nbd1 /other ext4 _netdev 0 0\n')
    assert 'nbd@nbd0.service' in u.facts('data.mount')['Requires']
    assert 'nbd@nbd1.service' not in u.facts('other.mount')['Requires']
