"""Marks of what real servers show to be missing."""
import pytest

from tests.harness.nbd_ctypes import library

# Promises that the library does not keep yet: part of a test's name, and why.
NOT_YET = {
    'test_negotiation_can_be_left[nbd_server]': 'a reset after ABORT is an error',
    'test_killed_server_is_an_error_for_all_in_flight': 'nbd_poll returns 1',
}


def pytest_collection_modifyitems(items):
    for item in items:
        for part, why in NOT_YET.items():
            if part in item.nodeid and library().is_ours:
                item.add_marker(pytest.mark.xfail(reason=why, strict=True))
