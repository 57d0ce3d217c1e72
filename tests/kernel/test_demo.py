"""What the README promises to a newcomer works."""
import re

import pytest

from tests.harness.paths import ROOT

pytestmark = pytest.mark.guest


def test_the_demonstration_verifies_everything_and_leaves_nothing_behind(host):
    before = set(host.list('/tmp'))
    out = host.run([ROOT / 'contrib' / 'demo', '--built'], timeout=900).out
    assert '==> All verified' in out.splitlines()[-1]
    assert re.search(r'\d{3,} files are whole', out)
    for state in ('connected', 'reconnecting'):
        assert state in out
    left = {n for n in set(host.list('/tmp')) - before if n.startswith('nbdd-demo')}
    assert not left
