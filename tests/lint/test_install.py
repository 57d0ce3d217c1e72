"""What `scons install` would lay out, without building anything: every file by its name."""
import os
import re
import subprocess

import pytest

from tests.harness.paths import ROOT

USUAL = '''
include/libnbd.h include/nbdd.h
lib/dracut/modules.d/90nbdd/generator.sh lib/dracut/modules.d/90nbdd/module-setup.sh
lib/dracut/modules.d/90nbdd/nbdd-initrd.service lib/dracut/modules.d/90nbdd/nbddroot.sh
lib/dracut/modules.d/90nbdd/parse-nbdd.sh
lib/libnbd.so.0 lib/libnbd.so lib/pkgconfig/libnbd.pc
lib/systemd/catalog/nbdd.catalog lib/systemd/system-generators/nbdd-generator
lib/systemd/system/nbd@.service lib/systemd/system/nbdd.service lib/systemd/system/nbdd.socket
lib/systemd/system/nbdd-metrics.service lib/systemd/system/nbdd-metrics.timer
lib/systemd/system/nbdd-connect.service lib/systemd/system/nbdd-connect.socket
lib/systemd/system/nbdd-programs.service lib/systemd/system/nbdd-programs.socket
lib/sysusers.d/nbdd.conf lib/udev/rules.d/61-nbdd.rules
lib/nbdd/nbdd-root.conf sbin/nbdctl sbin/nbdd
share/bash-completion/completions/nbdctl share/zsh/site-functions/_nbdctl
share/initramfs-tools/hooks/nbdd share/initramfs-tools/scripts/local-top/nbdd
share/man/man5/nbdd.conf.5 share/man/man5/nbdtab.5
share/man/man7/nbdd-tls.7 share/man/man7/nbdd.boot.7
share/man/man8/nbdctl.8 share/man/man8/nbdd-generator.8 share/man/man8/nbdd.8
share/nbdd/grafana/nbdd.json
share/nbdd/prometheus/nbdd.rules.yml share/nbdd/prometheus/nbdd.test.yml
'''
CLIENT = '''
sbin/nbd-client share/man/man8/nbd-client.8
share/bash-completion/completions/nbd-client share/zsh/site-functions/_nbd-client
'''


def installed(*options):
    text = subprocess.run(
        ['scons', '-n', '-Q', 'PREFIX=/usr', 'LIBDIR=/usr/lib', 'SYSCONFDIR=/etc', 'DESTDIR=/to',
         *options, 'install'], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, 'PATH': '/usr/bin:/bin'}, stdin=subprocess.DEVNULL).stdout
    return {f for f in re.findall(r'(?m)(?: as "|^Linking |^ln -sf .* )/to/usr/([^"\s]+)', text)
            if not f.startswith('share/man/man3/')}


@pytest.mark.parametrize('options, more', [
    ((), ''),
    pytest.param(('NBD_CLIENT=yes',), CLIENT, marks=pytest.mark.slow),
])
def test_install_lays_out_these_files(options, more):
    assert sorted(installed(*options)) == sorted((USUAL + more).split())
