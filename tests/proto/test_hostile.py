"""Every named script of tests/harness/scripts.py against a client that connects and reads:
each gives what its row promises, with one clear error, in bounded time."""
import re
import time

import pytest

from tests.harness.nbd_ctypes import NbdError, buffer
from tests.harness.scripts import SCRIPTS
from tests.harness.script_server import Export

from tests.proto.marks import better

COUNT = 4096
# What the distribution's library lets pass, or follows without end.
BETTER = {
    "half-at-greeting": "may stay in a state of connecting",
    "close-at-greeting": "may stay in a state of connecting",
    "ack-without-info": "connects to an export of unknown size",
    "long-description": "drops the oversized text and goes on",
    "negative-size": "takes a size that nbd_get_size cannot return",
    "oldstyle-negative-size": "takes a size that nbd_get_size cannot return",
    "endless-info-export": "reads for ever",
    "endless-meta": "reads for ever",
    "endless-chunks": "reads for ever",
}


def names(*expect):
    return [pytest.param(name, marks=better(f"the other {BETTER[name]}")
                         if name in BETTER else ())
            for name, row in sorted(SCRIPTS.items())
            if row.expect in expect and name != "slow"]     # the daemon's tests take it


@pytest.fixture
def start(serve, handle):
    def make(name):
        export = Export()
        export.memory.write(0, b"content " * (COUNT // 8))
        return serve(SCRIPTS[name].make({"": export})), handle(meta=["base:allocation"])
    return make


def assert_one_clear_error(error, call):
    assert error.text.startswith(f"{call}: ")
    assert "\n" not in error.text
    assert not re.search(r"[\x00-\x1f\x7f]", error.text)
    assert len(error.text) < 1000


@pytest.mark.parametrize("name", names("ok"))
def test_odd_but_correct_server_is_served(start, name):
    server, h = start(name)
    h.connect_uri(server.uri())
    assert h.read(0, COUNT) == b"content " * (COUNT // 8)


@pytest.mark.parametrize("name", names("refused"))
def test_refusal_is_reported_at_connect(start, name):
    server, h = start(name)
    with pytest.raises(NbdError) as e:
        h.connect_uri(server.uri())
    assert_one_clear_error(e.value, "nbd_connect_uri")
    assert server.requests() == []


@pytest.mark.parametrize("name", names("broken", "closed"))
def test_broken_server_is_one_clear_error(start, name):
    server, h = start(name)
    began = time.monotonic()
    with pytest.raises(NbdError) as e:
        h.connect_uri(server.uri())
        h.read(0, COUNT)
        h.read(0, COUNT)        # what follows a good reply is the next command's trouble
    assert_one_clear_error(e.value, "nbd_pread" if server.requests() else "nbd_connect_uri")
    assert h.state() in ("DEAD", "CLOSED")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", names("failed"))
def test_error_of_a_command_leaves_the_connection_sound(start, name):
    server, h = start(name)
    h.connect_uri(server.uri())
    with pytest.raises(NbdError) as e:
        h.read(0, COUNT)
    assert_one_clear_error(e.value, "nbd_pread")
    assert h.state() == "READY"


@pytest.mark.parametrize("name", names("silent"))
def test_silent_server_never_blocks_a_caller_with_a_time_limit(start, name):
    server, h = start(name)
    began = time.monotonic()
    h.aio_connect_uri(server.uri())
    while not h.aio_is_ready() and h.poll(200) == 1:
        pass
    if h.aio_is_ready():
        data = buffer(COUNT)
        cookie = h.aio_pread(data, COUNT, 0, None, 0)
        while h.poll(200) == 1:
            pass
        assert not h.aio_command_completed(cookie)
    h.close()
    assert time.monotonic() - began < 5
