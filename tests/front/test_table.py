"""Every option, operand form and line of nbdtab that nbd-client takes: what the kernel has
afterwards, and the exit status.  Where the distribution's nbd-client (3.24) does the same, it
is run, too, and must; rows of its bugs and of later versions' options are for ours alone."""
import collections

import pytest

from tests.front.front import OURS, SIZE, THEIRS, USUAL, Front

pytestmark = pytest.mark.guest

Row = collections.namedtuple('Row', 'args rc effect both nbdtab before')


def row(args, rc=0, effect=None, both=True, nbdtab='', before=''):
    """EFFECT: {index: (size, read-only, block size)}; what a successful connect to nbd0
    gives, by default.  BEFORE: command lines that prepare, separated by semicolons."""
    if effect is None:
        effect = {0: USUAL} if rc == 0 else {}
    return Row(args, rc, effect, both, nbdtab, before)


CONNECT = '127.0.0.1 /dev/nbd0 -N a'

CONNECTING = [
    # operands
    row('127.0.0.1'),
    row('127.0.0.1 10809'),
    row('127.0.0.1 -N a'),
    row('127.0.0.1 10809 /dev/nbd0'),
    row('127.0.0.1 /dev/nbd1 -N a', effect={1: USUAL}),
    row('-N a 127.0.0.1 10809 /dev/nbd0'),
    row('127.0.0.1 -N a 10809 /dev/nbd0'),
    row('localhost /dev/nbd0 -N a'),
    row('127.0.0.1 {list} /dev/nbd0 -N a'),
    row('127.0.0.1 nbd1 -N a', effect={1: USUAL}, both=False),
    row('127.0.0.1 /dev/nbd0 bs=4096 -N a', effect={0: (SIZE, 0, 4096)}),
    row('127.0.0.1 10809 /dev/nbd0 bs=1024 timeout=30', effect={0: (SIZE, 0, 1024)}),
    row('127.0.0.1 -N a', effect={0: USUAL, 1: USUAL}, before='127.0.0.1 /dev/nbd0 -N a'),
    # one dash, two dashes, abbreviated, with and without =, clusters
    row('127.0.0.1 /dev/nbd0 -name a'),
    row('127.0.0.1 /dev/nbd0 --name a'),
    row('127.0.0.1 /dev/nbd0 -name=a'),
    row('127.0.0.1 /dev/nbd0 --name=a'),
    row('127.0.0.1 /dev/nbd0 -Na'),
    row(f'{CONNECT} -block 1024', effect={0: (SIZE, 0, 1024)}),
    row(f'{CONNECT} -pR', effect={0: (SIZE, 1, 512)}),
    # each option
    row(f'{CONNECT} -b 4096', effect={0: (SIZE, 0, 4096)}),
    row(f'{CONNECT} -b4096', effect={0: (SIZE, 0, 4096)}),
    row(f'{CONNECT} -b 0x1000', effect={0: (SIZE, 0, 4096)}),
    row(f'{CONNECT} -block-size 2048', effect={0: (SIZE, 0, 2048)}),
    row(f'{CONNECT} -B 1048576', effect={0: (1 << 20, 0, 512)}),
    row(f'{CONNECT} -size 1048576 -b 4096', effect={0: (1 << 20, 0, 4096)}),
    row(f'{CONNECT} -t 30'),
    row(f'{CONNECT} -timeout 30'),
    row(f'{CONNECT} --timeout=0'),
    row(f'{CONNECT} -T 5', both=False),
    row(f'{CONNECT} -dead-timeout 5', both=False),
    row(f'{CONNECT} -C 2'),
    row(f'{CONNECT} -C4'),
    row(f'{CONNECT} -connections 2'),
    row(f'{CONNECT} --conn=2'),
    row(f'{CONNECT} -p'),
    row(f'{CONNECT} -persist'),
    row(f'{CONNECT} -s'),
    row(f'{CONNECT} -swap -persist -systemd-mark'),
    row(f'{CONNECT} -m', both=False),       # not in theirs, though in its manual
    row(f'{CONNECT} -R', effect={0: (SIZE, 1, 512)}),
    row(f'{CONNECT} -readonly', effect={0: (SIZE, 1, 512)}),
    row(f'{CONNECT} -g'),
    row(f'{CONNECT} -no-optgo'),
    row(f'{CONNECT} -L', both=False),           # theirs does not return reliably
    row(f'{CONNECT} -netlink', both=False),     # documented there, and missing
    row(f'{CONNECT} -i id', both=False),
    row(f'{CONNECT} -identifier id', both=False),
    row('-u /tmp/s.sock /dev/nbd0 -N a'),
    row('-unix /tmp/s.sock -N a'),
    row('/tmp/s.sock /dev/nbd0 -N a -unix'),
]

REFUSED = [
    row('', 1),
    row('127.0.0.1 10809 /dev/nbd0 more', 1),
    row('127.0.0.1 0 /dev/nbd0', 1),
    row('127.0.0.1 10809x /dev/nbd0', 1),
    row('127.0.0.1 0x2a39 /dev/nbd0', 1),
    row('127.0.0.1 /dev/sda -N a', 1),
    row('127.0.0.1 {none} /dev/nbd0 -N a', 1),
    row('127.0.0.1 {list} /dev/nbd0 -N missing', 1),
    row('127.0.0.1 /dev/nbd0 what=ever', 1),
    row('-u /tmp/nobody.sock /dev/nbd0', 1),
    row(f'{CONNECT} -b 0', 1),
    row(f'{CONNECT} -b 1000', 1),
    row(f'{CONNECT} -b 8192', 1),
    row(f'{CONNECT} -B 0', 1),
    row(f'{CONNECT} -B 1000', 1),
    row(f'{CONNECT} -B 16777216', 1, both=False),   # more than there is: theirs takes it
    row(f'{CONNECT} -connections 0', 1),
    row(f'{CONNECT} -P', 1),
    row(f'{CONNECT} -x', 1),                    # the server has no TLS
    row(f'{CONNECT} -nonsense', 1),
    row(f'{CONNECT} -b', 1),
    row(CONNECT, 1, {0: USUAL}, before=CONNECT),
]

OTHERS = [
    row('-V', effect={}), row('--version', effect={}), row('-h', effect={}),
    row('--help', effect={}),
    row('-l 127.0.0.1 {list}', effect={}), row('-list 127.0.0.1 {list}', effect={}),
    row('127.0.0.1 {list} -l', effect={}),
    row('-l 127.0.0.1 {silent}', 1), row('-l 127.0.0.1 {none}', 1),
    row('-l -u /tmp/s.sock', effect={}, both=False),    # theirs wants a port
    row('-c /dev/nbd0', 1), row('-c nbd0', 1), row('-c /dev/nbd99', 1), row('-c /dev/sda', 1),
    row('-c', 1), row('-d', 1),
    row('-c /dev/nbd0', before=CONNECT), row('-c nbd0', before=CONNECT),
    row('-check /dev/nbd0', before=CONNECT), row('-c /dev/nbd0p1', before=CONNECT),
    row('-c /dev/nbd1', 1, {0: USUAL}, before=CONNECT),
    row('-d /dev/nbd0', effect={}, before=CONNECT),
    row('-disconnect /dev/nbd0', effect={}, before=CONNECT),
    row('-d nbd0', effect={}, before=CONNECT, both=False),
    row('-d /dev/nbd0', effect={}),
    row('-d /dev/nbd99', 1), row('-d /dev/sda', 1),
    row('-d /dev/nbd0 /dev/nbd1', effect={}, before=f'{CONNECT}; 127.0.0.1 /dev/nbd1',
        both=False),
    row('-d /dev/nbd0 -d /dev/nbd1', effect={}, before=f'{CONNECT}; 127.0.0.1 /dev/nbd1',
        both=False),
]

NBDTAB = [
    row('nbd0', nbdtab='nbd0 127.0.0.1 a\n'),
    row('/dev/nbd0', nbdtab='nbd0 127.0.0.1 a\n'),
    row('nbd0', nbdtab='/dev/nbd0 127.0.0.1 a\n', both=False),
    row('nbd0', nbdtab='# comment\n\nnbd1 h x\nnbd0\t127.0.0.1\ta  bs=4096\n',
        effect={0: (SIZE, 0, 4096)}),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a conns=2,timeout=30,persist,swap,no_optgo\n'),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a port=10809\n'),
    row('nbd0', nbdtab='nbd0 /tmp/s.sock a unix,bs=1024\n', effect={0: (SIZE, 0, 1024)}),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a _netdev,_any=thing\n'),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a unheard-of\n'),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a dead-timeout=5\n', both=False),
    row('nbd0', 1, nbdtab='nbd1 127.0.0.1 a\n'),
    row('nbd0', 1, nbdtab='nbd0 127.0.0.1\n'),
    row('nbd0', 1, nbdtab=''),
    # what makes theirs fail, and ours take
    row('nbd0', nbdtab='nbd0 127.0.0.1 a', both=False),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a \t\n', both=False),
    row('nbd0', nbdtab=' nbd0 127.0.0.1 a\n', both=False),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a bs=4096\r\n', effect={0: (SIZE, 0, 4096)}, both=False),
    row('nbd0', nbdtab='nbd0 127.0.0.1 a # why\n', both=False),
    row('nbd0', nbdtab='garbage\nnbd0 127.0.0.1 a\n', both=False),
    # options of the command line go before those of the line
    row('nbd0 -b 1024', nbdtab='nbd0 127.0.0.1 a bs=4096\n', effect={0: (SIZE, 0, 1024)},
        both=False),
    row('nbd0 -persist -R', nbdtab='nbd0 127.0.0.1 a\n', effect={0: (SIZE, 1, 512)},
        both=False),
]


@pytest.fixture(scope='module')
def front(guest):
    f = Front(guest)
    yield f
    f.close()


def carry_out(front, client, r):
    """Its status, and what the kernel has then; nothing is left afterwards."""
    front.write_nbdtab(r.nbdtab)
    for command in filter(None, r.before.split('; ')):
        rc, out, err = front.run(client, command)
        assert rc == 0, (command, out, err)
    rc, out, err = front.run(client, r.args)
    state = front.state()
    front.clean(client)
    return rc, state, out, err


@pytest.mark.parametrize('r', CONNECTING + REFUSED + OTHERS + NBDTAB,
                         ids=lambda r: (r.args + (' < ' + r.nbdtab if r.nbdtab else ''))[:60])
def test_both_do_the_same(front, r):
    rc, state, out, err = carry_out(front, OURS, r)
    assert (rc, state) == (r.rc, r.effect), (out, err)
    assert rc == 0 or err.strip() or r.args.startswith('-c '), 'a failure without a word'
    if r.both:
        rc, state, theirs_out, err = carry_out(front, THEIRS, r)
        assert (rc, state) == (r.rc, r.effect), f'theirs: {theirs_out}{err}'
