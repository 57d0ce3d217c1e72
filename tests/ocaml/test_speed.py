"""OCaml's asynchronous calls against C's, in turns in one run, both on this library.

CPU time an operation is what the two differ in; how many there are a second depends on what
else the machine does.
"""
import pytest

from tests.bench import measure
from tests.harness.paths import BUILD
from tests.ocaml.programs import needs_ocaml, program

pytestmark = [needs_ocaml, pytest.mark.bench]

TRIES = ((3, 0.3), (7, 0.4), (15, 0.6))         # (rounds, seconds)
SHARE = 0.7


def share(uri, mode, clients, rounds, seconds):
    samples = measure.interleaved(uri, [mode], rounds, seconds, clients=clients)
    c, ocaml = (measure.median(samples, name, mode, 'cpu_ns') for name in clients)
    return c / ocaml


def test_ocaml_at_depth_64_has_most_of_the_speed_of_c():
    clients = {'C': measure.on_library(BUILD),
               'OCaml': measure.Client(program('speed'), BUILD)}
    with measure.nullserver() as uri:
        for mode in measure.modes(clients['OCaml']):
            found = []
            for rounds, seconds in TRIES:
                found.append(share(uri, mode, clients, rounds, seconds))
                if found[-1] >= SHARE:
                    break
            else:
                pytest.fail(f'{mode}: shares of the speed of C: {found}, not {SHARE}')
