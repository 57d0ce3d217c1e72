"""Marks of tests by what a library promises.

The tests run on any libnbd.so.0 (NBDD_TEST_LIB).  On the distribution's, those of behaviour
that is better here on purpose, or of calls that it has not, are skipped; on ours all run.
"""
import pytest

from tests.harness.nbd_ctypes import library


def better(reason):
    """Ours does better than the distribution's library on purpose: REASON."""
    return pytest.mark.skipif(not library().is_ours, reason=f"better in ours: {reason}")


def needs(*names):
    """A test of calls that came after the distribution's version, or of nbdd.h."""
    missing = [n for n in names if not library().has(n)]
    return pytest.mark.skipif(bool(missing) and not library().is_ours,
                              reason=f"this library has no {', '.join(missing)}")
