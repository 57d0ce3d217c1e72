"""What Prometheus' own programs say of metrics."""
import re
import subprocess
import tempfile
import urllib.request

from tests.harness.paths import ROOT
from tests.harness.wait import wait_until

RULES = ROOT / 'contrib/prometheus'
DASHBOARD = ROOT / 'contrib/grafana/nbdd.json'


def names():
    """{metric: type} that nbdd has."""
    source = (ROOT / 'daemon/metrics.c').read_text()
    return dict(re.findall(r'\{ "(nbdd_\w+)", "(gauge|counter)"', source))


def used(expression):
    """The metrics of a PromQL expression."""
    return set(re.findall(r'\b(?:nbdd|node)_\w+', re.sub(r'"[^"]*"', '', expression)))


def promtool(*args, text=None):
    """It must accept this; its output."""
    r = subprocess.run(['promtool', *map(str, args)], input=text, text=True, timeout=60,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=RULES)
    assert r.returncode == 0, r.stdout
    return r.stdout


def samples(text):
    """{'name{labels}': value} of a text of metrics."""
    return {k: float(v) for k, v in re.findall(r'^([a-z_]+(?:\{.*\})?) (\S+)$', text, re.M)}


def exported(directory):
    """What the node exporter makes of the files in DIRECTORY."""
    with tempfile.TemporaryFile('w+') as log:
        p = subprocess.Popen(['prometheus-node-exporter', '--web.listen-address=127.0.0.1:0',
                              '--collector.disable-defaults', '--collector.textfile',
                              f'--collector.textfile.directory={directory}'],
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def address():
            assert p.poll() is None
            log.seek(0)
            return re.search(r'Listening on" address=(\S+)', log.read())
        try:
            url = f'http://{wait_until(address, 30)[1]}/metrics'
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    url, timeout=30) as answer:
                return answer.read().decode()
        finally:
            p.kill()
            p.wait()
