"""The shells complete what nbdctl knows, from its own help."""
import os
import subprocess

import pytest

from tests.control.manager import Manager, device
from tests.harness.paths import BUILD, ROOT

SCRIPT = ROOT / 'contrib' / 'completions' / 'nbdctl.bash'
COMPLETE = '''
. {script}
compopt() {{ :; }}
COMP_WORDS=({words})
COMP_CWORD=$(({n} - 1))
_nbdctl
printf '%s\\n' "${{COMPREPLY[@]}}"
'''


def complete(*words, path=''):
    script = COMPLETE.format(script=SCRIPT, words=' '.join(f"'{w}'" for w in words), n=len(words))
    env = {**os.environ, 'PATH': f"{path}{BUILD}:{os.environ['PATH']}"}
    return set(subprocess.run(['bash', '-euc', script], env=env, capture_output=True, text=True,
                              check=True).stdout.split())


def test_verbs():
    assert complete('nbdctl', '') >= {'attach', 'detach', 'status', 'reconnect', 'check', 'help'}
    assert complete('nbdctl', 'rec') == {'reconnect'}
    assert complete('nbdctl', '--runtime-dir', '=', '/x', 'rec') == {'reconnect'}


@pytest.mark.parametrize('words, expected', [
    (['status', '--'], {'--json', '--watch', '--help'}),
    (['attach', 'nbd://h', '--dead'], {'--dead-timeout='}),
    (['detach', 'root', '--f'], {'--force'}),
])
def test_options_and_keys(words, expected):
    assert complete('nbdctl', *words) >= expected


def test_devices_by_node_and_by_name(tmp_path):
    with Manager(tmp_path / 'run') as m:
        m.status(device(name='root', state='reconnecting'))
        wrapper = tmp_path / 'nbdctl'
        wrapper.write_text(f'#!/bin/sh\nexec {BUILD}/nbdctl --runtime-dir={tmp_path}/run "$@"\n')
        wrapper.chmod(0o755)
        assert complete('nbdctl', 'detach', '', path=f'{tmp_path}:') == {'/dev/nbd0', 'root'}
