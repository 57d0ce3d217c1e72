"""The picture of the layers in the documentation stays true: includes only look downward."""
import os

import pytest

from tests.harness.paths import ROOT
from tests.lint.sources import PRODUCT, c_files, includes

# A folder, and the folders below it.  A file belongs to the longest that fits.
BELOW = {
    'lib/util': (),
    'lib/wire': ('lib/util',),
    'lib/record': ('lib/util',),
    'lib/io': ('lib/record', 'lib/util'),
    'lib/session': ('lib/wire', 'lib/io', 'lib/util'),
    'lib/api': ('lib/session', 'lib/wire', 'lib/io', 'lib/util'),
    'netlink': ('lib/util',),
    'conf': ('lib/util',),
    'daemon/proto': ('lib/util',),
    'daemon': ('daemon/proto', 'daemon/cli', 'conf', 'netlink', 'lib/record', 'lib/util'),
    'daemon/generator': ('conf', 'lib/util'),
    'daemon/cli': ('daemon/proto', 'conf', 'netlink', 'lib/util'),
}
# What others may include of a folder.  Within lib, each header is a door of its own.
DOORS = {
    'netlink': {'netlink/nbdk.h'},
    'conf': {'conf/conf.h'},
    'daemon/proto': {'daemon/proto/varlink.h', 'daemon/proto/manager.h'},
    'daemon/cli': {'daemon/cli/cli.h'},
}
# The library's public headers, which only programs on top of it see.
PUBLIC = {'libnbd.h', 'nbdd.h'}
# Made by lib/gen.py, for lib/api alone.
GENERATED = {'lib/api/calls.h'}
PUBLIC_FOR = ('lib/api', 'daemon', 'daemon/cli')


def folder_of(path):
    fitting = [f for f in BELOW if path.startswith(f + '/')]
    return max(fitting, key=len) if fitting else None


def complaint(name, included):
    mine = folder_of(name)
    if included in PUBLIC:
        return None if mine in PUBLIC_FOR else 'is for what stands on top of the library'
    if included in GENERATED:
        return None if mine == 'lib/api' else 'is for lib/api'
    if not (ROOT / included).exists():
        return 'is not a path from the top of the tree'
    theirs = folder_of(included)
    if theirs == mine:
        return None
    if theirs not in BELOW[mine]:
        return f'{mine} must not know {theirs or os.path.dirname(included)}'
    if included not in DOORS.get(theirs, {included}):
        return f'is private to {theirs}, whose door is {", ".join(sorted(DOORS[theirs]))}'
    return None


def test_every_source_belongs_to_a_layer():
    assert [n for n in c_files(*PRODUCT) if folder_of(n) is None] == []


def test_includes_only_look_downward_and_through_doors():
    wrong = [f'{name}: "{inc}": {why}' for name in c_files(*PRODUCT) if folder_of(name)
             for inc in includes(name) if (why := complaint(name, inc))]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('name, included', [
    ('lib/util/fd.c', 'netlink/nbdk.h'),
    ('conf/keys.c', 'netlink/nbdk.h'),
    ('daemon/main.c', 'conf/internal.h'),
    ('netlink/genl.c', 'genl.h'),
    ('lib/wire/x.c', 'libnbd.h'),
])
def test_the_check_finds_what_is_wrong(name, included):
    assert complaint(name, included)


def test_headers_have_pragma_once():
    assert [n for n in c_files(*PRODUCT, 'tests') if n.endswith('.h') and
            '#pragma once' not in (ROOT / n).read_text()] == []
