"""Metrics: the command, the alerts and the dashboard; test_guest.py has those of a device."""
import json
import os
import re
import subprocess

import pytest

from tests.control import prometheus
from tests.control.test_nbdctl import (FAILED, NO_DAEMON, OK, USAGE, complains, manager,
                                       run)                     # noqa: F401
from tests.harness.paths import BUILD, ROOT

TEXT = '# HELP nbdd_up Whether nbdd answers.\n# TYPE nbdd_up gauge\nnbdd_up 1\n'
NODE_EXPORTER_S = {'node_textfile_mtime_seconds'}


def test_metrics_go_to_stdout_or_into_a_file(manager, tmp_path):    # noqa: F811
    manager.answers['Metrics'] = {'parameters': {'text': TEXT}}
    r = manager.run('status', '--prometheus')
    assert (r.returncode, r.stdout, r.stderr) == (OK, TEXT, '')
    file = tmp_path / 'x.prom'
    file.write_text('old')
    before = os.open(file, os.O_RDONLY)
    r = manager.run('status', '--prometheus', f'--output={file}')
    assert (r.returncode, r.stdout, r.stderr) == (OK, '', '')
    # Another file took its place: who reads the old one goes on with that.
    assert (file.read_text(), os.read(before, 9)) == (TEXT, b'old')
    os.close(before)
    assert file.stat().st_mode & 0o777 == 0o644
    assert {p.name for p in tmp_path.iterdir()} == {'control', 'x.prom'}
    r = manager.run('status', '--prometheus', f'--output={tmp_path}/no/x.prom')
    assert complains(r, FAILED, f'cannot write {tmp_path}/no/x.prom')


def test_without_a_daemon_the_file_says_so(tmp_path):
    file = tmp_path / 'x.prom'
    r = run('status', '--prometheus', f'--output={file}', directory=tmp_path)
    assert complains(r, NO_DAEMON, 'not running')
    assert prometheus.samples(file.read_text()) == {'nbdd_up': 0}
    prometheus.promtool('check', 'metrics', text=file.read_text())
    assert complains(run('status', '--prometheus', directory=tmp_path), NO_DAEMON)


@pytest.mark.parametrize('args', [['--json'], ['--watch'], ['nbd0']])
def test_metrics_are_of_all_devices_and_nothing_else(args):
    assert complains(run('status', '--prometheus', *args), USAGE)
    assert complains(run('status', '--output=x'), USAGE, '--prometheus')


def test_an_answer_without_metrics_is_an_error(manager):        # noqa: F811
    manager.answers['Metrics'] = {'parameters': {}}
    assert complains(manager.run('status', '--prometheus'), FAILED, 'not understood')


def test_the_alerts_are_tested():
    assert 'SUCCESS' in prometheus.promtool('check', 'rules', 'nbdd.rules.yml')
    assert 'SUCCESS' in prometheus.promtool('test', 'rules', 'nbdd.test.yml')
    rules = (prometheus.RULES / 'nbdd.rules.yml').read_text()
    tests = (prometheus.RULES / 'nbdd.test.yml').read_text()
    alerts = re.findall(r'- alert: (\w+)', rules)
    assert len(alerts) > 5
    for alert in alerts:
        assert re.search(rf'alertname: {alert}\n +exp_alerts:\n +- exp_labels', tests), alert
    known = set(prometheus.names()) | NODE_EXPORTER_S
    assert prometheus.used(re.sub(r'node_exporter|[a-z_]+[.](yml|timer)', '', rules)) <= known


def test_the_dashboard_uses_metrics_that_there_are(tmp_path):
    board = json.loads(prometheus.DASHBOARD.read_text())
    expressions = [t['expr'] for p in board['panels'] for t in p['targets']]
    queries = [v['query']['query'] for v in board['templating']['list'] if v['type'] == 'query']
    assert len(expressions) > 15
    found = set().union(*map(prometheus.used, expressions + queries))
    # All that there are but what only tells how a number came about.
    assert found == set(prometheus.names())
    # PromQL takes them, with Grafana's words filled in.
    rules = [{'record': f'x:{i}', 'expr': e.replace('$__rate_interval', '1m')}
             for i, e in enumerate(expressions)]
    file = tmp_path / 'rules.json'
    file.write_text(json.dumps({'groups': [{'name': 'x', 'rules': rules}]}))
    prometheus.promtool('check', 'rules', file)
    ids = [p['id'] for p in board['panels']]
    assert len(set(ids)) == len(ids)


def test_the_manual_has_every_metric():
    page = (BUILD / 'man/man8/nbdctl.8').read_text()
    for name in prometheus.names():
        assert re.search(rf'^\.B {name}$', page, re.M), name


def test_units_are_well_formed(tmp_path):
    for name in ('nbdd-metrics.service', 'nbdd-metrics.timer'):
        made = BUILD / 'systemd' / name
        text = (made if made.exists() else ROOT / 'contrib/systemd' / name).read_text()
        assert '@' not in re.sub('SystemCallFilter=@[a-z-]+', '', text)
        # A program that is there, whatever is installed.
        (tmp_path / name).write_text(re.sub(r'^ExecStart=\S+', 'ExecStart=/bin/true', text,
                                            flags=re.M))
    r = subprocess.run(['systemd-analyze', 'verify', '--man=no', *tmp_path.iterdir()],
                       capture_output=True, text=True)
    assert (r.returncode, r.stderr) == (0, '')
