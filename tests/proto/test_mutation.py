"""A correct server whose messages are spoilt at random, by seed: whatever comes of it, every
call returns, every callback is freed once, and what a successful read gave is complete."""
import random

import pytest

from tests.harness.nbd_ctypes import (CHUNK, CONTEXT, EXTENT, LIST, Callback, Handle, NbdError,
                                      buffer, completion)
from tests.harness.script_server import Export, Script, ScriptServer

pytestmark = pytest.mark.fuzz
SEEDS, GROUPS = 240, 8


def spoil(rng, data):
    """DATA with one or a few defects."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not data:
            break
        # Headers are where it hurts, and stand at the front.
        at = min(int(rng.expovariate(1 / 16)), len(data) - 1)
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[at:at + rng.randrange(1, 9)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 4:
            data[at:at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
        else:
            data = data[:at] + data[:at] + data[at:]
    return bytes(data)


def spoiling(rng, chance):
    def piece(session, message):
        reply = session.usual(message)
        return spoil(rng, reply) if rng.random() < chance else reply
    return piece


def script(rng):
    late = rng.random() < 0.7           # most spoil what comes after the handshake
    return Script(
        exports={"": Export(description="text", block_size=(1, 4096, 1 << 20)),
                 "b": Export()},
        structured=rng.random() < 0.8, extended=rng.random() < 0.4,
        greeting=None if late or rng.random() < 0.8 else spoiling(rng, 1),
        any_option=None if late else spoiling(rng, 0.3),
        any_command=spoiling(rng, 0.3) if late else None,
        segment=rng.choice((None, None, 1, 7, 100)), limit_seconds=0.4)


def use(h, uri, rng, made):
    """What a program does; errors end it.  MADE collects the callbacks."""
    def callback(kind):
        made.append(Callback(kind))
        return made[-1]

    def done():
        made.append(completion(lambda error: 1))
        return made[-1]

    if rng.random() < 0.5:
        h.set_opt_mode(True)
    h.set_full_info(True)
    h.add_meta_context("base:allocation")
    h.connect_uri(uri)
    if h.aio_is_negotiating():
        h.opt_list(callback(LIST))
        h.opt_info()
        h.opt_list_meta_context(callback(CONTEXT))
        h.opt_go()
    h.write(0, b"x" * 5000)
    assert h.read(0, 4999) is not None
    h.pread_structured(buffer(5000), 5000, 0, callback(CHUNK), 0)
    if h.can_meta_context("base:allocation"):
        h.block_status(65536, 0, callback(EXTENT), 0)
    kept = [buffer(700) for _ in range(12)]
    for i, block in enumerate(kept):
        h.aio_pread(block, 700, i * 700, done(), 0)
        h.aio_flush(done(), 0)
    while h.aio_in_flight():
        h.poll(1000)
    h.shutdown(0)


@pytest.mark.parametrize("group", range(GROUPS))
def test_spoilt_messages_end_in_an_answer(group):
    outcomes = {"well": 0, "error": 0}
    for seed in range(group, SEEDS, GROUPS):
        rng, made = random.Random(seed), []
        with ScriptServer(script(rng)) as server:
            h = Handle()
            try:
                use(h, server.uri(), rng, made)
                outcomes["well"] += 1
            except NbdError as e:
                assert e.text.startswith("nbd_") and "\n" not in e.text, seed
                outcomes["error"] += 1
            h.close()
        assert all(cb.sound for cb in made), seed
    assert outcomes["error"] > SEEDS / GROUPS / 4   # else nothing was spoilt
