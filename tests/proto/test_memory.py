"""What a hostile server can make the library allocate: little, whatever it claims or sends."""
import errno
import json
import struct
import subprocess
import sys

import pytest

from tests.harness import pieces
from tests.harness.nbd_proto import Chunk, Cmd
from tests.harness.paths import ROOT
from tests.harness.script_server import Export
from tests.harness.scripts import SCRIPTS
from tests.proto.marks import better

LIMIT = 16 << 20

ATTACKS = [
    ("read", "huge-option-length"), ("read", "huge-error-length"), ("info", "long-description"),
    ("read", "endless-info"), ("read", "endless-info-export"), ("list", "endless-list"),
    ("list", "long-name-list"), ("list", "name-beyond-list"),
    ("list", "endless-list-error"), ("contexts", "endless-context-list"),
    ("connect", "endless-meta"), ("connect", "long-meta-name"), ("connect", "short-meta"),
    ("read", "huge-chunk"), ("read", "huge-error-chunk"), ("read", "endless-chunks"),
    ("block-status", "huge-status"), ("block-status", "endless-status"),
    ("block-status", "too-many-extents"), ("connect", "wrong-magic"),
]
WITHOUT_END = (
    "endless-chunks", "endless-info-export", "endless-meta", "endless-list",
    "endless-context-list", "endless-status", "too-many-extents", "long-description",
    "long-name-list")


def run(operation, uri):
    child = subprocess.run([sys.executable, "-m", "tests.harness.nbd_child", operation, uri],
                           cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize("operation, name", [
    pytest.param(o, n, marks=better("the other follows or accepts it")
                 if n in WITHOUT_END else ()) for o, n in ATTACKS])
def test_attack_is_one_clear_error_in_little_memory_and_time(serve, operation, name):
    server = serve(SCRIPTS[name].make({"": Export()}))
    result = run(operation, server.uri())
    assert result["error"] and result["errno"] != errno.ENOMEM
    assert "\n" not in result["error"]
    assert result["grown"] < LIMIT
    assert result["seconds"] < 10


def test_millions_of_extents_take_the_memory_of_one_answer(serve):
    """8 Mi extents of 512 bytes, in answers as big as they may be: 1 Mi extents."""
    extents = struct.pack(">II", 512, 3) * (1 << 20)
    server = serve(exports={"": Export(size=1 << 32, contexts={"base:allocation": None})},
                   command={Cmd.BLOCK_STATUS: pieces.chunks(
                       (Chunk.BLOCK_STATUS, struct.pack(">I", 1) + extents))})
    result = run("whole-map", server.uri())
    assert result["error"] is None
    # What came, and the same in the form for the callback.
    assert result["grown"] < 8 * (1 << 20) + 16 * (1 << 20) + LIMIT / 2
    assert len(server.requests()) == 8 and result["seconds"] < 30


def test_the_measure_measures(serve):
    """A correct read of 4 KiB grows the process by little, so what is over is the attack's."""
    result = run("read", serve().uri())
    assert result["error"] is None
    assert result["grown"] < LIMIT / 4
