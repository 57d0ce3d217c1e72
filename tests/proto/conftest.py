"""Fixtures of the library's tests: scripted servers and handles, cleaned up after each."""
import faulthandler

import pytest

from tests.harness.nbd_ctypes import Handle
from tests.harness.script_server import Script, ScriptServer

# A call that hangs in C cannot be interrupted; end the process, naming the place.
HANG_SECONDS = 120


@pytest.fixture(autouse=True)
def end_of_patience():
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def serve():
    """serve(Script...) starts a scripted server; serve(field=...) one of Script(field=...)."""
    servers = []

    def start(*scripts, listen="unix", **fields):
        server = ScriptServer(*(scripts or [Script(**fields)]), listen=listen)
        servers.append(server)
        return server
    yield start
    for server in servers:
        server.close()


@pytest.fixture
def handle():
    """handle(setting=value...) creates a handle, e.g. handle(opt_mode=True)."""
    handles = []

    def create(meta=(), **settings):
        h = Handle()
        handles.append(h)
        for name in meta:
            h.add_meta_context(name)
        for name, value in settings.items():
            h.call("set_" + name, value)
        return h
    yield create
    for h in handles:
        h.close()


@pytest.fixture
def connected(serve, handle):
    """connected(script fields..., handle={settings}): (server, connected handle)."""
    def connect(settings=None, export="", **fields):
        server = serve(**fields)
        h = handle(**(settings or {}))
        h.connect_uri(server.uri(export))
        return server, h
    return connect


@pytest.fixture
def ready(connected):
    """A server of all commands and a handle connected to it."""
    return connected()
