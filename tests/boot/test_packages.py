"""The Debian packages are well formed, and install, upgrade and go away cleanly."""
import re
import shutil
import subprocess

import pytest

from tests.boot.image import Tree, run
from tests.boot.packages import facts, package, packages

pytestmark = pytest.mark.boot


def test_lintian_finds_no_error():
    changes = list(packages().glob('*.changes'))
    r = subprocess.run(['lintian', '--allow-root', '--fail-on', 'error', '--no-cfg', *changes],
                       capture_output=True, text=True, timeout=900)
    assert r.returncode == 0, r.stdout + r.stderr


def test_each_package_has_its_part():
    files = {name: facts(package(name))
             for name in ('nbdd', 'nbdd-boot', 'libnbd0-nbdd', 'libnbd-nbdd-dev')}
    for name, path in (('nbdd', '/usr/sbin/nbdd'), ('nbdd', '/usr/sbin/nbdctl'),
                       ('nbdd', '/usr/sbin/nbd-client'),
                       ('nbdd', '/lib/systemd/system/nbdd.service'),
                       ('nbdd-boot', '/usr/share/initramfs-tools/hooks/nbdd'),
                       ('nbdd-boot', '/usr/lib/dracut/modules.d/90nbdd/module-setup.sh'),
                       ('libnbd-nbdd-dev', '/usr/include/libnbd.h'),
                       ('libnbd-nbdd-dev', '/usr/share/man/man3/nbd_create.3.gz')):
        assert path in files[name], f'{name}: {sorted(files[name])}'
    assert any(f.endswith('/libnbd.so.0') for f in files['libnbd0-nbdd'])


@pytest.mark.parametrize('name', ['nbdd', 'nbdd-boot'])
def test_a_new_version_of_what_the_initramfs_has_makes_that_anew(name):
    assert 'activate-noawait update-initramfs' in run(['dpkg-deb', '-I', package(name), 'triggers'])


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    path = tmp_path_factory.mktemp('tree')
    yield Tree(path / 'root')
    shutil.rmtree(path)


def test_they_take_the_place_of_nbd_client_and_go_again(tree):
    """nbd-client is known to dpkg, as a package of that name with nothing in it."""
    fake = tree / '/tmp/fake/DEBIAN'
    fake.mkdir(parents=True)
    (fake / 'control').write_text('Package: nbd-client\nVersion: 1:3.24-1.1\n'
                                  'Architecture: all\nMaintainer: a <a@b.invalid>\n'
                                  'Description: stand-in\n')
    run(['dpkg-deb', '-b', fake.parent, tree / '/tmp/nbd-client.deb'])
    for name in ('nbdd', 'nbdd-boot', 'libnbd0-nbdd'):
        shutil.copy(package(name), tree / f'/tmp/{name}.deb')
    tree.chroot('dpkg -i /tmp/nbd-client.deb')
    tree.chroot('dpkg -i /tmp/nbdd.deb && ! dpkg -s nbd-client | grep -q ^Status:.installed')
    tree.chroot('dpkg -i /tmp/nbdd-boot.deb /tmp/libnbd0-nbdd.deb')
    tree.write('/etc/nbdtab', 'nbd0 server export\n')
    tree.chroot('nbdctl --version; nbd-client -V; nbdctl check; ldconfig -p | grep libnbd')
    tree.chroot('dpkg -i /tmp/nbdd.deb /tmp/nbdd-boot.deb')         # an upgrade
    assert (tree / '/etc/nbdtab').read_text() == 'nbd0 server export\n'
    tree.chroot('dpkg -P nbdd-boot nbdd libnbd0-nbdd')
    left = [str(f.relative_to(tree.path)) for d in ('usr', 'lib', 'etc')
            for f in (tree / d).rglob('*') if re.search(r'nbdd|nbdctl|libnbd', f.name)]
    assert left == []
