"""The interface io.nbdd.Manager is well formed, and what we say of it is true."""
import re

import pytest

from tests.control.idl import Interface
from tests.control.manager import DEVICE, device
from tests.harness.paths import BUILD, ROOT

TEXT = (ROOT / 'daemon/proto/io.nbdd.Manager.varlink').read_text()


def test_the_interface_is_well_formed():
    i = Interface(TEXT)
    assert i.name == 'io.nbdd.Manager'
    assert set(i.methods) == {'Attach', 'Detach', 'Status', 'Metrics', 'Events', 'Reconnect', 'Move',
                              'Reload'}


def test_every_part_says_what_it_is_for():
    for kind in ('method', 'type'):
        for m in re.finditer(rf'^{kind} (\w+)', TEXT, re.M):
            before = TEXT[:m.start()].rstrip('\n').rsplit('\n', 1)[1]
            assert before.startswith('#'), f'{m[1]} has no comment'


def test_the_devices_of_these_tests_are_of_the_interface():
    i = Interface(TEXT)
    assert i.check(DEVICE, 'Device')
    for certificate in (None, {'names': 'a', 'expires': 1, 'days_left': -1}):
        tls = {'version': 'TLS1.3', 'cipher': 'x', 'in_kernel': True,
               'why_not_in_kernel': None, 'certificate': certificate, 'own_certificate': None}
        assert i.check(device(tls=tls), 'Device')


@pytest.mark.parametrize('change', [{'size': '1'}, {'extra': 1}, {'read_only': 0}, {'name': None},
                                    {'index': True}, {'connections': [{}]}, {'tls': {}}])
def test_the_check_finds_what_is_wrong(change):
    with pytest.raises(AssertionError):
        Interface(TEXT).check(device(**change), 'Device')


def test_the_manual_names_every_member_of_a_device():
    page = (BUILD / 'man/man8/nbdctl.8').read_text()
    i = Interface(TEXT)
    for name in ('Device', 'Tls', 'Certificate', 'Connection', 'Outages', 'Outage', 'Retry', 'Io',
                 'Moving'):
        for member in i.types[name]:
            assert re.search(rf'\b{member}\b', page), member
