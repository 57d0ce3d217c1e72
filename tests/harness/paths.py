"""Where things are: the source tree, what was built, where downloads are kept."""
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# NBDD_BUILD=build-address,undefined tests a build with sanitizers.
BUILD = ROOT / os.environ.get('NBDD_BUILD', 'build')
HARNESS = ROOT / 'tests' / 'harness'
CACHE = pathlib.Path(os.environ.get('NBDD_TEST_CACHE') or
                     os.path.expanduser('~/.cache/nbdd-tests'))

NBDD = BUILD / 'nbdd'
NBDCTL = BUILD / 'nbdctl'
# Programs for guests are static and plain, whichever build is tested.
AGENT = ROOT / 'build' / 'tests' / 'agent'
TLS_SERVER = ROOT / 'build' / 'tests' / 'tls_server'
NO_TLS_RX = ROOT / 'build' / 'tests' / 'no_tls_rx.so'
UML_SUSPEND = ROOT / 'build' / 'tests' / 'uml_suspend.so'
VERIFIER = ROOT / 'build' / 'tests' / 'verifier'
