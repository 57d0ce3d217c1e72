"""What the kernel's command line asks for is attached at boot, as its users write it."""
import pytest

from tests.conf.files import check_boot


def boot(tmp_path, line):
    r = check_boot(tmp_path, line)
    assert r.problems == []
    return r


def root_of(tmp_path, line):
    d = boot(tmp_path, line).devices['root']
    assert d.pop('auto') == '1' and d.pop('line') == '1'
    return d


# Debian's initramfs script for nbd-client: docs and behaviour; its bugs mended.
NBDROOT = {
    'srv,data,nbd3': {'index': '3', 'addresses': 'srv', 'export': 'data'},
    'srv,10809,nbd0': {'index': '0', 'addresses': 'srv', 'export': '10809'},
    'srv,10810': {'index': '0', 'addresses': 'srv', 'port': '10810'},
    'srv,data': {'index': '0', 'addresses': 'srv', 'export': 'data'},
    'fe80::1%eth0,data': {'index': '0', 'addresses': 'fe80::1%eth0', 'export': 'data'},
    '[::1],data,nbd1': {'index': '1', 'addresses': '::1', 'export': 'data'},
    'srv:10810/data': {'index': '0', 'addresses': 'srv', 'port': '10810', 'export': 'data'},
    'srv:10810': {'index': '0', 'addresses': 'srv', 'port': '10810'},
    'srv:10810/a/b': {'index': '0', 'addresses': 'srv', 'port': '10810', 'export': 'a/b'},
    'srv:/path/x': {'index': '0', 'addresses': 'srv', 'export': '/path/x'},
    '[2001:db8::1]:10810/data': {'index': '0', 'addresses': '2001:db8::1', 'port': '10810',
                                 'export': 'data'},
    '[2001:db8::1]:/path': {'index': '0', 'addresses': '2001:db8::1', 'export': '/path'},
    'srv': {'index': '0', 'addresses': 'srv'},
    'nbds://srv/data': {'index': '0', 'uri': 'nbds://srv/data'},
}


@pytest.mark.parametrize('text', NBDROOT)
def test_nbdroot_in_all_its_forms(text, tmp_path):
    assert root_of(tmp_path, f'quiet nbdroot={text} ro') == NBDROOT[text]


@pytest.mark.parametrize('line, index', [
    ('nbdroot=s,e,nbd3 root=/dev/nbd5', '5'), ('nbdroot=s,e,nbd3 root=/dev/nbd5p2', '5'),
    ('nbdroot=s,e nbddev=nbd7 root=UUID=0-1', '7'), ('nbdroot=s,e nbddev=/dev/nbd7', '7'),
    ('nbdroot=s,e root=LABEL=nbd9', '0'), ('nbdroot=s,e,nbd4 nbddev=sda root=nbdx', '4')])
def test_the_device_is_where_the_root_is_looked_for(line, index, tmp_path):
    assert root_of(tmp_path, line)['index'] == index


@pytest.mark.parametrize('line, where', [
    ('nbdroot=dhcp nbdd.root-path=/srv/x nbdd.root-server=10.0.0.1',
     {'addresses': '10.0.0.1', 'export': '/srv/x'}),
    ('nbdroot= nbdd.root-path=s:10810/x nbdd.root-server=10.0.0.1',
     {'addresses': 's', 'port': '10810', 'export': 'x'}),
    ('nbdroot=dhcp,x nbdd.root-server=10.0.0.1', {'addresses': '10.0.0.1', 'export': 'x'}),
    ('nbdroot=,10810 nbdd.root-server=fe80::1', {'addresses': 'fe80::1', 'port': '10810'})])
def test_what_nbdroot_leaves_out_comes_from_dhcp(line, where, tmp_path):
    assert root_of(tmp_path, line) == {'index': '0', **where}


DRACUT = {
    'nbd:srv:10810': ({'addresses': 'srv', 'port': '10810'}, '(none)', '(none)'),
    'nbd:srv:data': ({'addresses': 'srv', 'export': 'data'}, '(none)', '(none)'),
    'nbd:[2001:db8::1]:data:ext4':
        ({'addresses': '2001:db8::1', 'export': 'data'}, 'ext4', '(none)'),
    'nbd:[fe80::1%eth0]:data':
        ({'addresses': 'fe80::1%eth0', 'export': 'data'}, '(none)', '(none)'),
    'nbd:srv:data:ext4:ro,noatime': ({'addresses': 'srv', 'export': 'data'}, 'ext4', 'ro,noatime'),
    'nbd:srv:data:::bs=4096,timeout=30,-swap,-persist':
        ({'addresses': 'srv', 'export': 'data', 'block-size': '4096', 'timeout': '30s',
          'swap': 'yes'}, '(none)', '(none)'),
    'nbd:srv:10810:ext4::-b,4096,-timeout=30,-name,data,-systemd-mark,dead-timeout=5min':
        ({'addresses': 'srv', 'port': '10810', 'export': 'data', 'block-size': '4096',
          'timeout': '30s', 'dead-timeout': '5min'}, 'ext4', '(none)'),
    'nbd://srv:10810/data': ({'uri': 'nbd://srv:10810/data'}, '(none)', '(none)'),
}


@pytest.mark.parametrize('parameter', ['root', 'netroot'])
@pytest.mark.parametrize('text', DRACUT)
def test_dracuts_root_in_all_its_forms(text, parameter, tmp_path):
    keys, fstype, flags = DRACUT[text]
    r = boot(tmp_path, f'{parameter}={text} ip=dhcp')
    device = {k: v for k, v in r.devices['root'].items() if k not in ('auto', 'line')}
    assert device == {'index': '0', **keys}
    assert r.root == f'root /dev/nbd0 fstype={fstype} flags={flags}'


def test_dracuts_root_goes_before_netroot_and_may_be_a_partition(tmp_path):
    assert root_of(tmp_path, 'netroot=nbd:a:x root=nbd:b:y')['addresses'] == 'b'
    r = boot(tmp_path, 'root=/dev/nbd1p1 netroot=nbd:a:x')
    assert r.devices['root']['index'] == '1' and r.root.startswith('root /dev/nbd1 ')


def test_attach_takes_any_uri_and_keys_and_may_stand_several_times(tmp_path):
    r = boot(tmp_path, 'nbdd.attach=nbd://a/x nbdd.attach=data=nbds://b/y%2Cz,device=/dev/nbd4,'
             'connections=2,tls-certificates=/etc/pki/nbd "nbdd.attach=nbd+unix:///?socket=/s" '
             'nbdroot=c,root')
    keys = {n: {k: v for k, v in d.items() if k not in ('auto', 'line')}
            for n, d in r.devices.items()}
    assert keys == {
        'boot0': {'index': '-1', 'uri': 'nbd://a/x'},
        'data': {'index': '4', 'uri': 'nbds://b/y%2Cz', 'connections': '2',
                 'tls-certificates': '/etc/pki/nbd'},
        'boot2': {'index': '-1', 'uri': 'nbd+unix:///?socket=/s'},
        'root': {'index': '0', 'addresses': 'c', 'export': 'root'}}


def test_a_name_that_is_a_node_asks_for_it(tmp_path):
    r = boot(tmp_path, 'nbdd.attach=nbd3=nbd://a/x nbdd.attach=nbd4=nbd://b/y,device=/dev/nbd4')
    assert [r.devices[name]['index'] for name in ('nbd3', 'nbd4')] == ['3', '4']


def test_the_boot_may_go_on_without_a_device(tmp_path):
    r = boot(tmp_path, 'nbdd.attach=a=nbd://a/x,nofail,read-only=yes nbdd.attach=b=nbd://b/y')
    assert {n: d.get('nofail') for n, d in r.devices.items()} == {'a': '1', 'b': None}
    assert r.devices['a']['read-only'] == 'yes'
    r = check_boot(tmp_path, 'nbdd.attach=a=nbd://a/x,nofail=no')
    assert not r.devices and 'nofail' in r.problems[0]


@pytest.mark.parametrize('line', [
    '', 'quiet ro root=/dev/sda1', 'root=UUID=1 netroot=nfs:a:/b', 'nbdroot', 'nbddev=nbd0',
    'xnbdroot=a,b', 'nbdd.attach', '\n\n'])
def test_a_line_that_asks_for_nothing_attaches_nothing(line, tmp_path):
    assert boot(tmp_path, line).devices == {}


WRONG = {
    'nbdroot=dhcp': 'no server is named, and DHCP gave no root path',
    'nbdroot=/x': 'no server is named, and DHCP gave none',
    'nbdroot=a:b/c': "nbdroot=a:b/c: expected SERVER",
    'nbdroot=[::1': 'nbdroot=[::1: expected SERVER',
    'nbdroot=a,b,nbd0,c': 'nbdroot=a,b,nbd0,c: expected SERVER',
    'nbdroot=a/b:1/c': 'nbdroot=a/b:1/c: expected SERVER',
    'nbdroot=a,99999': 'port',
    'root=nbd:a': 'root=nbd:a: expected nbd:SERVER',
    'root=nbd::10809': 'root=nbd::10809: expected nbd:SERVER',
    'root=nbd:a::ext4': 'root=nbd:a::ext4: expected nbd:SERVER',
    'root=nbd:a:b:::bs=17': 'block-size',
    'nbdd.attach=server': 'expected [NAME=]URI',
    'nbdd.attach=-x=nbd://a': 'not a name for a device',
    'nbdd.attach=nbd://a,device=sda': 'allowed is /dev/nbdN',
    'nbdd.attach=nbd3=nbd://a,device=/dev/nbd4': 'its name is that of another device',
    'nbdd.attach=nbd://a,color=red': 'color',
    'nbdd.attach=http://a': 'uri',
}


@pytest.mark.parametrize('line', WRONG)
def test_what_is_not_understood_is_named_and_costs_its_own_device_only(line, tmp_path):
    r = check_boot(tmp_path, f'{line} nbdd.attach=good=nbd://b')
    assert [p for p in r.problems if 'error' in p and WRONG[line] in p] == r.problems
    assert r.problems and list(r.devices) == ['good']


def test_an_unknown_option_of_dracut_is_a_warning(tmp_path):
    r = check_boot(tmp_path, 'root=nbd:a:b:::-fast,swap')
    assert len(r.problems) == 1 and 'warning' in r.problems[0] and 'fast' in r.problems[0]
    assert r.devices['root']['swap'] == 'yes'


def test_two_devices_of_one_name_or_number_are_a_problem(tmp_path):
    r = check_boot(tmp_path, 'nbdd.attach=a=nbd://x nbdd.attach=a=nbd://y')
    assert len(r.problems) == 1 and 'asked for twice' in r.problems[0]
    assert r.devices['a']['uri'] == 'nbd://x'
