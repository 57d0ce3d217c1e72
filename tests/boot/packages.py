"""The Debian packages of this tree, built once for one state of it."""
import fcntl
import hashlib
import shutil
import subprocess

from tests.boot.image import run
from tests.harness.paths import CACHE, ROOT


def state_of_tree():
    """A digest of every file that goes into the packages."""
    names = run(['git', '-C', ROOT, 'ls-files', '-z', '--cached', '--others',
                 '--exclude-standard']).split('\0')
    digest = hashlib.sha256()
    for name in sorted(filter(None, names)):
        file = ROOT / name
        if not name.startswith('tests/') and file.is_file():
            digest.update(f'{name}\0{file.stat().st_mode & 0o777}\0'.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def packages():
    """The directory with the packages."""
    CACHE.mkdir(parents=True, exist_ok=True)
    where = CACHE / f'packages-{state_of_tree()}'
    with open(CACHE / 'packages.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not where.exists():
            for old in CACHE.glob('packages-*'):
                shutil.rmtree(old)
            run([ROOT / 'contrib' / 'debian' / 'build', f'{where}.new'], timeout=1500)
            shutil.move(f'{where}.new', where)
    return where


def package(name):
    """The file of one package."""
    [file] = packages().glob(f'{name}_*.deb')
    return file


def facts(file):
    """{name: mode and owner} of what a package has in it."""
    lines = subprocess.run(['dpkg-deb', '-c', file], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    return {line.split(None, 5)[5].split(' ')[0].removeprefix('.'): line.split()[0]
            for line in lines}
