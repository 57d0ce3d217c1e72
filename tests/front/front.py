"""A guest in which nbd-client, theirs or ours, runs as on a system of its own: its /etc has
an nbdtab that a test may write, and servers listen where both find them."""
from tests.harness.paths import BUILD
from tests.harness.servers import NbdServer, Nbdkit

OURS = BUILD / 'nbd-client'
THEIRS = '/usr/sbin/nbd-client'
DEVICES = range(4)
SIZE = 8 << 20
USUAL = (SIZE, 0, 512)         # what a device with default options is

ETC = ('passwd', 'group', 'nsswitch.conf', 'hosts', 'host.conf', 'services', 'protocols',
       'ld.so.cache', 'alternatives')


class Front:
    """`g` is the guest; run(client, args) a front-end; state() what the kernel has then."""

    def __init__(self, guest):
        self.g = guest
        guest.sh(f'mkdir -p /tmp/etc; cd /etc; cp -a {" ".join(ETC)} /tmp/etc/ || true; '
                 'busybox mount -o bind /tmp/etc /etc')
        self.write_nbdtab('')
        # 10809 is the port that both take when none is given.
        self.tcp = Nbdkit(guest, ('memory', '8M'), tcp=True, port=10809).start()
        self.unix = Nbdkit(guest, ('memory', '8M'), socket='/tmp/s.sock').start()
        guest.run(['truncate', '-s', '8M', '/tmp/image'])
        exports = {name: {'exportname': '/tmp/image'} for name in ('a', 'b')}
        self.lists = NbdServer(guest, exports, tcp=True).start()
        self.silent = NbdServer(guest, exports, {'allowlist': 'false'}, tcp=True).start()

    def write_nbdtab(self, text):
        self.g.write('/etc/nbdtab', text)

    def words(self, args):
        """ARGS, a string, as words; {list}, {silent} and {none} stand for ports."""
        ports = {'list': self.lists.port, 'silent': self.silent.port, 'none': 1}
        return [w.format(**ports) for w in args.split()]

    def run(self, client, args):
        """Its status and what it printed on stdout and on stderr."""
        command = ['sh', '-c', 'out=$1 err=$2; shift 2; exec "$@" >"$out" 2>"$err"', 'sh',
                   '/tmp/out', '/tmp/err', client, *self.words(args)]
        rc = self.g.run(command, check=False).rc
        return rc, self.g.read('/tmp/out'), self.g.read('/tmp/err')

    def device(self, index):
        """(size in bytes, read-only, block size), or None when it is not connected."""
        try:
            self.g.block(index, 'pid')
        except OSError:
            return None
        return (int(self.g.block(index, 'size')) * 512, int(self.g.block(index, 'ro')),
                int(self.g.block(index, 'queue/logical_block_size')))

    def state(self):
        return {i: d for i in DEVICES if (d := self.device(i))}

    def clean(self, client):
        for index in self.state():
            rc, _, err = self.run(client, f'-d /dev/nbd{index}')
            assert rc == 0, err
        assert self.state() == {}

    def close(self):
        for server in (self.tcp, self.unix, self.lists, self.silent):
            server.close()
