"""Fixtures of the tests that boot a Debian."""
import shutil

import pytest

from tests.boot.debian import Debian


@pytest.fixture(scope='session')
def debian(tmp_path_factory):
    path = tmp_path_factory.mktemp('debian')
    yield Debian(path)
    shutil.rmtree(path)
