"""The setups of nbdd-tls(7), typed in as they stand there."""
import re
import subprocess

from tests.harness.paths import BUILD, NBDCTL
from tests.harness.wait import wait_until

PAGE = BUILD / 'man/man7/nbdd-tls.7'


def example(section):
    """The lines of the first example below the heading, as a shell reads them."""
    text = PAGE.read_text()
    text = text[text.index(f'.SH {section}\n'):]
    text = re.search(r'^\.EX\n(.*?)^\.EE', text, re.S | re.M)[1]
    for troff, plain in (('\\-', '-'), ('\\(aq', "'"), ('\\e', '\\')):
        text = text.replace(troff, plain)
    return text


def type_in(host, section, rest=''):
    """Only names and places are not those of the manual, and a device needs a kernel: so its
    server is asked for the export in place of an attach."""
    port = host.port()
    (host.path / 'nbd').mkdir()
    (host.path / 'disk').write_bytes(bytes(1 << 20))
    text = example(section)
    assert len(text.splitlines()) <= 12, 'ten lines or so'
    for old, new in (('/etc/nbd', host.path / 'nbd'), ('/srv/disk', host.path / 'disk'),
                     ('server.example/', f'localhost:{port}/'), ('server.example', 'localhost'),
                     ('nbdctl attach', f'{NBDCTL} info'), ('nbdkit ', f'nbdkit -p {port} ')):
        text = text.replace(old, str(new))
    before, server, after = re.split(r'^(nbdkit .*)$', text, flags=re.M)
    subprocess.run(['sh', '-ec', before], check=True, capture_output=True)
    process = host.spawn(['sh', '-c', f'exec {server.replace("nbdkit", "nbdkit -f", 1)}'])
    wait_until(lambda: host.listening(port=port), 10, 'nbdkit to listen')
    r = host.run(['sh', '-ec', after])
    process.kill()
    process.wait()
    return r.out


def test_the_setup_by_pre_shared_key_works(host):
    assert 'TLS: on' in type_in(host, r'A PRE\-SHARED KEY')


def test_the_setup_by_certificates_works(host):
    assert 'TLS: on' in type_in(host, 'CERTIFICATES')
