"""Servers for the OCaml programs."""
import pytest

from tests.harness.proc import Host
from tests.harness.script_server import Export, Script, ScriptServer
from tests.harness.nbd_proto import Flag
from tests.harness.servers import Nbdkit

KEY = 'a1' * 32


@pytest.fixture(scope='module')
def machine():
    with Host() as h:
        yield h


@pytest.fixture(scope='module')
def kit(machine):
    """nbdkit with 8 MiB of memory on a Unix socket."""
    with Nbdkit(machine, ['memory', '8M']) as server:
        yield server


@pytest.fixture(scope='module')
def tcp(machine):
    with Nbdkit(machine, ['memory', '8M'], tcp=True) as server:
        yield server


@pytest.fixture(scope='module')
def psk(machine):
    """(server that demands TLS, its file of keys)."""
    keys = machine.path / 'keys.psk'
    keys.write_text(f'alice:{KEY}\n')
    keys.chmod(0o600)
    with Nbdkit(machine, ['memory', '8M'],
                options=['--tls=require', f'--tls-psk={keys}']) as server:
        yield server, keys


@pytest.fixture(scope='module')
def extended():
    """The scripted server with extended headers and filtered block status."""
    export = Export(size=8 << 20, flags=Flag.ALL_COMMANDS | Flag.BLOCK_STATUS_PAYLOAD)
    with ScriptServer(Script({'': export}, extended=True, limit_seconds=300)) as server:
        yield server
