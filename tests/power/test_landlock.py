"""What hides files from the children of nbdd-connect.service leaves none."""
import pytest

from tests.harness.paths import BUILD

FILES = ['open', 'open_root', 'create', 'openat2']


def test_without_files_nothing_can_be_opened(host):
    """Landlock has nothing to do with users: root cannot, either."""
    free = host.run([BUILD / 'tests' / 'escape', '/nowhere', 'free', 'open', 'openat2']).out
    assert free.splitlines() == ['open worked', 'openat2 worked']
    out = host.run([BUILD / 'tests' / 'escape', '/nowhere', 'hidden', *FILES], check=False).out
    if 'no Landlock: ' in out:
        pytest.skip(f'this machine: {out.strip()}')
    assert out.splitlines() == [f'{name} refused EACCES' for name in FILES]
