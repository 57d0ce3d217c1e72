"""netlink/ against a real kernel: each call as `nbdkcli` makes it, in one guest.

Servers speak oldstyle, whose hello is all of the negotiation: the kernel never sees it.
"""
import re
import struct

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import ROOT
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until

# Like all that runs in guests: never with sanitizers.
NBDKCLI = ROOT / 'build' / 'tests' / 'nbdkcli'
MIB = 1 << 20
CAN_MULTI_CONN = 1 << 8

pytestmark = pytest.mark.guest


class Refused(Exception):
    """The call failed: `errno` by name, `why` the sentence, if it has one."""

    def __init__(self, text):
        super().__init__(text)
        self.errno, _, self.why = text.partition(': ')


class Kernel:
    """The calls of netlink/ in a guest."""

    def __init__(self, guest):
        self.guest = guest

    def call(self, verb, *sockets, **arguments):
        argv = [NBDKCLI, verb, *(f'{k}={v}' for k, v in arguments.items()),
                *(f'socket={s}' for s in sockets)]
        rc, out = self.guest.run(argv, check=False)
        if rc == 1:
            raise Refused(out.strip())
        assert rc == 0, f'{argv}: status {rc}\n{out}'
        return out

    def connect(self, *sockets, **arguments):
        return int(self.call('connect', *sockets, **arguments))

    def info(self, index):
        pairs = dict(line.split('=', 1) for line in
                     self.call('info', index=index).splitlines())
        return {k: v if k == 'backend' else int(v) for k, v in pairs.items()}

    def holders(self, index, **arguments):
        """[(kind, device, pid, text)]"""
        lines = self.call('holders', index=index, **arguments).splitlines()
        return [(k, d, int(p), t) for k, d, p, t in (line.split(' ', 3) for line in lines)]

    def watch(self, **arguments):
        p = self.guest.spawn([NBDKCLI, 'watch', *(f'{k}={v}' for k, v in arguments.items())])
        wait_until(lambda: p.output.startswith('ready'), what='the watcher')
        return p

    def disconnect_all(self):
        for name in self.guest.list('/sys/block'):
            if name.startswith('nbd') and self.guest.exists(f'/sys/block/{name}/pid'):
                self.call('disconnect', index=name[3:])
        wait_until(lambda: not self.guest.in_d_state(), what='everybody out of the devices')

    def spawn(self, *argv):
        return self.guest.spawn([str(a) for a in argv])


@pytest.fixture(scope='module')
def k(boot):
    return Kernel(boot(modules=('dummy', 'loop', 'dm-mod'), nbds_max=16))


@pytest.fixture
def server(k):
    """A server; its devices are disconnected at the end, as others of the test's are."""
    with Nbdkit(k.guest, ['memory', '64M'], options=['-o']) as s:
        yield s
        k.disconnect_all()


@pytest.fixture(autouse=True)
def clean(k):
    """Each test finds no device connected."""
    yield
    k.disconnect_all()


@pytest.fixture
def watcher(k):
    p = k.watch()
    yield p
    p.kill()
    p.wait()
    assert 'allocated' not in p.output


def at(server):
    return f'unix:{server.socket}' if server.socket else f'tcp:{server.port}'


# ---- connect


def test_connect_takes_the_lowest_free_device_and_tells_which(k, server):
    assert k.connect(at(server)) == 0
    assert k.connect(at(server)) == 1
    k.call('disconnect', index=0)
    assert k.connect(at(server)) == 0


def test_connect_takes_the_device_that_was_asked_for_and_makes_it_when_new(k, server):
    assert k.connect(at(server), index=5) == 5
    assert k.connect(at(server), index=60) == 60
    indexes = list(map(int, k.call('foreach').split()))
    assert indexes == sorted(indexes) and {5, 60} <= set(indexes)


def test_walk_over_devices_stops_where_it_is_told_to(k):
    with pytest.raises(Refused) as e:
        k.call('foreach', max=3)
    assert str(e.value).split() == ['0', '1', '2', 'ECANCELED']


def test_device_in_use_and_device_merely_open_are_busy_until_closed(k, server):
    k.connect(at(server), index=2)
    with pytest.raises(Refused) as e:
        k.connect(at(server), index=2)
    assert e.value.errno == 'EBUSY' and 'connected already' in e.value.why
    opener = k.spawn(NBDKCLI, 'hold', 'path=/dev/nbd3')
    wait_until(lambda: 'ready' in opener.output)
    with pytest.raises(Refused) as e:
        k.connect(at(server), index=3)
    assert e.value.errno == 'EBUSY' and 'has it open' in e.value.why
    opener.kill()
    opener.wait()
    assert k.connect(at(server), index=3) == 3


@pytest.mark.parametrize('errno, why, sockets, arguments', [
    ('EINVAL', 'no size', ['pair'], dict(size=0)),
    ('EINVAL', 'power of two', ['pair'], dict(block=1000)),
    ('EINVAL', 'power of two', ['pair'], dict(block=256)),
    ('EINVAL', 'no socket', [], {}),
    ('EINVAL', '16', ['pair'] * 17, dict(flags=CAN_MULTI_CONN)),
    ('EINVAL', 'stream sockets', ['udp'], {}),
    ('EINVAL', 'stream sockets', ['datagram'], {}),
    ('EINVAL', 'several connections', ['pair', 'pair'], {}),
    ('EINVAL', 'index', ['pair'], dict(index=40000)),
    ('EINVAL', 'index', ['pair'], dict(index=(1 << 20) + 1)),
    ('EINVAL', 'identifier', ['pair'], dict(id='')),
    ('EINVAL', 'identifier', ['pair'], dict(id='x' * 256)),
    ('ENOTSOCK', 'not a socket', ['file'], {}),
    ('EBADF', 'closed', ['closed'], {}),
])
def test_refused_connect_says_why_and_leaves_no_device(k, errno, why, sockets, arguments):
    with pytest.raises(Refused) as e:
        k.connect(*sockets, **{'size': MIB, 'flags': 0, **arguments})
    assert e.value.errno == errno and why in e.value.why
    assert not k.info(0)['connected']


def test_longest_identifier_and_most_sockets_are_taken(k):
    index = k.connect(*['pair'] * 16, size=MIB, flags=CAN_MULTI_CONN, id='i' * 255)
    assert k.info(index)['backend'] == 'i' * 255


def test_nothing_sticks_from_an_earlier_life(k, server):
    k.connect(at(server), index=1, timeout=7)
    assert k.call('queue-get', index=1, name='io_timeout') == '7000\n'
    k.call('disconnect', index=1)
    k.connect(at(server), index=1)
    assert k.call('queue-get', index=1, name='io_timeout') == '30000\n'


def test_driver_is_not_there_outside_the_initial_network_namespace(k):
    rc, out = k.guest.run(['unshare', '-n', NBDKCLI, 'open'], check=False)
    assert (rc, out) == (1, 'ENOENT\n')
    assert k.call('open') == ''


# ---- sysfs


def test_sysfs_tells_who_connected_what(k):
    with Nbdkit(k.guest, ['memory', '64M'], options=['-o', '-r']) as server:
        index = k.connect(at(server), id='export one', block=512)
        k.guest.run(['dd', f'if=/dev/nbd{index}', 'of=/dev/null', 'bs=1M', 'count=4'])
        info = k.info(index)
        assert info['connected'] and info['pid'] > 1 and info['read_only']
        assert info['backend'] == 'export one' and info['size'] == 64 * MIB
        assert k.call('queue-get', index=index, name='logical_block_size') == '512\n'
        assert info['in_flight'] == 0
        assert info['reads'] > 0 and info['read_bytes'] >= 4 * MIB
        assert (info['writes'], info['write_bytes']) == (0, 0)
        k.call('disconnect', index=index)
        info = k.info(index)
        assert not info['connected'] and info['backend'] == '' and info['size'] == 0


def test_sysfs_counts_requests_in_flight(k, server):
    index = k.connect(at(server))
    k.guest.run(['dd', f'of=/dev/nbd{index}', 'if=/dev/zero', 'bs=1M', 'count=1',
                 'oflag=direct'])
    assert k.info(index)['write_bytes'] == MIB
    server.stop()
    reader = k.spawn('dd', f'if=/dev/nbd{index}', 'of=/dev/null', 'bs=4k', 'count=1',
                     'iflag=direct')
    wait_until(lambda: k.info(index)['in_flight'] == 1)
    server.cont()
    assert reader.wait() == 0
    assert k.info(index)['in_flight'] == 0


def test_device_that_does_not_exist_is_told_from_one_unconnected(k):
    with pytest.raises(Refused, match='ENOENT'):
        k.info(999)
    assert k.info(7)['connected'] == 0


def test_queue_settings_are_written_and_read_by_name_only(k, server):
    index = k.connect(at(server))
    k.call('queue-set', index=index, name='max_sectors_kb', value=64)
    assert k.call('queue-get', index=index, name='max_sectors_kb') == '64\n'
    for name, errno in (('no_such', 'ENOENT'), ('../size', 'EINVAL'), ('', 'EINVAL'),
                        ('..', 'EINVAL'), ('x' * 65, 'EINVAL')):
        with pytest.raises(Refused) as e:
            k.call('queue-set', index=index, name=name, value=1)
        assert e.value.errno == errno
    with pytest.raises(Refused, match='EINVAL'):
        k.call('queue-set', index=index, name='max_sectors_kb', value=1)


# ---- links that die


@pytest.mark.parametrize('tcp', [False, True])
def test_death_of_a_server_is_told_and_a_new_socket_revives_the_device(k, watcher, tcp):
    with Nbdkit(k.guest, ['memory', '64M'], options=['-o'], tcp=tcp) as server:
        index = k.connect(at(server), index=4)
        k.call('queue-set', index=index, name='io_timeout', value=200)
        server.kill()
        wait_until(lambda: f'dead {index}\n' in watcher.output, 20)
        assert k.call('status', index=index) == 'connected\n'
        reader = k.spawn('dd', f'if=/dev/nbd{index}', 'of=/dev/null', 'bs=64k', 'count=4',
                         'iflag=direct')
        wait_until(lambda: 'dd' in k.guest.in_d_state())
        server.start()
        assert k.call('reconnect', at(server), index=index) == ''
        watch = Stopwatch()
        assert reader.wait() == 0 and watch.quiet() < 2


def test_driver_that_is_loaded_anew_is_found_again_by_calls_and_events(k, watcher):
    """It has another number then, and another group for its events."""
    file, parameters = next(line.split() for line in
                            k.guest.read(f'{k.guest.path}/modules').splitlines()
                            if line.split()[0].endswith('/nbd.ko'))
    with Nbdkit(k.guest, ['memory', '64M'], tcp=True) as server, Daemon(k.guest) as daemon:
        daemon.attach(server.uri, name='before')
        daemon.detach('before')
        wait_until(lambda: k.guest.run(['busybox', 'rmmod', 'nbd']), 20)
        r = daemon.ctl('attach', server.uri, check=False)
        assert r.rc and 'no nbd driver' in r.out
        k.guest.run(['busybox', 'insmod', file, parameters])
        index = int(daemon.attach(server.uri, name='after')[8:])
        server.restart()
        wait_until(lambda: f'dead {index}\n' in watcher.output, 20)
        daemon.wait_state('after', 'connected')
        daemon.detach('after')


def test_requests_in_flight_resume_soon_after_every_outage_not_the_first_only(k, watcher,
                                                                              server):
    index = k.connect(at(server))
    k.call('queue-set', index=index, name='io_timeout', value=200)
    for outage in (1, 2):
        server.stop()
        reader = k.spawn('dd', f'if=/dev/nbd{index}', 'of=/dev/null', 'bs=4k', 'count=1',
                         'iflag=direct')
        wait_until(lambda: k.info(index)['in_flight'] == 1)
        server.restart()
        wait_until(lambda: watcher.output.count('dead') == outage)
        assert k.call('reconnect', at(server), index=index) == ''
        watch = Stopwatch()
        assert reader.wait() == 0 and watch.quiet() < 2
        assert k.call('queue-get', index=index, name='io_timeout') == '200\n'


def test_reconnect_changes_the_timeout_only_when_told_to(k, server):
    index = k.connect(at(server), timeout=5)
    assert k.call('queue-get', index=index, name='io_timeout') == '5000\n'
    k.call('reconnect', at(server), index=index)
    assert k.call('queue-get', index=index, name='io_timeout') == '5000\n'
    k.call('reconnect', at(server), index=index, timeout=9)
    assert k.call('queue-get', index=index, name='io_timeout') == '9000\n'
    k.call('reconnect', at(server), index=index, timeout=(1 << 64) - 1)
    assert k.call('queue-get', index=index, name='io_timeout') == '30000\n'


def test_reconnect_with_another_identifier_or_of_no_device_is_refused(k, server):
    index = k.connect(at(server), id='mine')
    for arguments in (dict(index=index, id='other'), dict(index=index, id=''),
                      dict(index=9, id='mine'), dict(index=999, id='mine'),
                      dict(index=1 << 20, id='mine')):
        with pytest.raises(Refused, match='EINVAL'):
            k.call('reconnect', at(server), **arguments)
    with pytest.raises(Refused, match='EINVAL'):
        k.call('reconnect', index=index, id='mine')
    with pytest.raises(Refused, match='EINVAL'):
        k.call('reconnect', *['pair'] * 17, index=index, id='mine')


def test_each_dead_link_is_an_event_and_lost_ones_are_told(k):
    small, large = k.watch(max=1), k.watch()
    small.kill(19)
    wait_until(lambda: k.guest.proc_status(small.pid)['State'].startswith('T'))
    # The far ends close with the caller.
    index = k.connect(*['pair'] * 16, size=MIB, flags=CAN_MULTI_CONN)
    wait_until(lambda: large.output.count(f'dead {index}\n') == 16)
    small.kill(18)
    wait_until(lambda: 'ENOBUFS' in small.output)
    assert 0 < small.output.count('dead') < 16
    assert 'ENOBUFS' not in large.output
    for p in (small, large):
        p.kill()
        p.wait()


def test_outage_longer_than_the_dead_timeout_fails_io_and_reconnect_still_revives(k, watcher,
                                                                                  server):
    index = k.connect(at(server), dead=1)
    server.kill()
    wait_until(lambda: 'dead' in watcher.output)
    read = ['dd', f'if=/dev/nbd{index}', 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct']
    rc, out = k.guest.run(read, check=False)
    assert rc == 1 and 'Input/output error' in out
    server.start()
    k.call('reconnect', at(server), index=index, dead=1)
    k.guest.run(read)


# ---- size and disconnect


def test_resize_grows_the_live_device_for_those_who_have_it_open(k, server):
    index = k.connect(at(server), size=16 * MIB)
    opener = k.spawn(NBDKCLI, 'hold', f'path=/dev/nbd{index}')
    wait_until(lambda: 'ready' in opener.output)
    k.call('resize', index=index, size=32 * MIB)
    assert k.info(index)['size'] == 32 * MIB
    assert k.guest.run(['blockdev', '--getsize64', f'/proc/{opener.pid}/fd/3']).out == \
        f'{32 * MIB}\n'
    for arguments in (dict(size=0), dict(size=MIB, id='other'), dict(size=MIB, id='')):
        with pytest.raises(Refused, match='EINVAL'):
            k.call('resize', index=index, **arguments)
    assert k.info(index)['size'] == 32 * MIB
    opener.kill()
    opener.wait()


def test_disconnect_frees_the_device_and_says_when_there_is_none(k, server):
    index = k.connect(at(server))
    k.call('disconnect', index=index)
    assert k.call('status', index=index) == 'not connected\n'
    assert k.call('disconnect', index=index) == ''
    with pytest.raises(Refused, match='EINVAL'):
        k.call('disconnect', index=999)
    with pytest.raises(Refused, match='ENODEV'):
        k.call('status', index=999)


# ---- holders


def partitioned(path):
    """An image with an MBR and two partitions of 8 MiB, at 1 and 16 MiB."""
    entry = '<B3sB3sII'
    table = b''.join(struct.pack(entry, 0, b'\0' * 3, 0x83, b'\0' * 3, start * 2048, 8 * 2048)
                     for start in (1, 16))
    with open(path, 'wb') as f:
        f.truncate(64 * MIB)
        f.seek(446)
        f.write(table)
        f.seek(510)
        f.write(b'\x55\xaa')
    return path


@pytest.fixture
def disk(k):
    """The index of a device with two partitions."""
    with Nbdkit(k.guest, ['file', partitioned(k.guest.path / 'disk')], options=['-o']) as s:
        index = k.connect(at(s), index=6, block=512)
        # The first open scans for partitions.
        k.guest.sh(f'head -c 1 </dev/nbd{index} >/dev/null')
        assert k.guest.exists(f'/dev/nbd{index}p2')
        yield index
        k.call('disconnect', index=index)


@pytest.mark.parametrize('what', ['', 'p2'], ids=['disk', 'partition'])
def test_only_the_last_close_disconnects_and_the_question_is_refused_after_it(k, disk, what):
    index = disk
    opener = k.spawn(NBDKCLI, 'hold', f'path=/dev/nbd{index}{what}')
    wait_until(lambda: 'ready' in opener.output)
    look = f'head -c 512 </dev/nbd{index} >/dev/null'
    k.call('last-close', index=index, max=1)
    k.guest.sh(look)
    k.call('last-close', index=index, max=0)            # somebody was left
    opener.kill()
    opener.wait()
    assert k.info(index)['size'] > 0                    # and it is connected without them
    with pytest.raises(Refused, match='EINVAL'):
        k.call('last-close', index=index, max=1, id='other')
    k.call('last-close', index=index, max=1)
    k.guest.sh(look)
    assert k.call('status', index=index) == 'not connected\n'
    for value in (0, 1):
        with pytest.raises(Refused, match='EINVAL'):
            k.call('last-close', index=index, max=value)


def test_device_that_nobody_has_has_no_holders(k, disk):
    assert k.holders(disk) == []
    assert k.holders(7) == []
    with pytest.raises(Refused, match='ENOENT'):
        k.holders(999)


def test_mounts_and_swap_on_partitions_hold_the_device(k, disk):
    k.guest.sh(f'mkfs.ext4 -qF /dev/nbd{disk}p1; mkdir -p "/mnt/a b"'
               f'; mount /dev/nbd{disk}p1 "/mnt/a b"'
               f'; mkswap /dev/nbd{disk}p2; swapon /dev/nbd{disk}p2')
    assert k.holders(disk) == [('mount', f'nbd{disk}p1', 0, '/mnt/a b'),
                               ('swap', f'nbd{disk}p2', 0, f'/dev/nbd{disk}p2')]
    k.guest.sh(f'swapoff /dev/nbd{disk}p2; umount "/mnt/a b"')
    assert k.holders(disk) == []


def test_mount_that_only_another_mount_namespace_sees_holds_the_device(k, disk):
    k.guest.sh(f'mkfs.ext4 -qF /dev/nbd{disk}p1; mkdir -p /mnt/private')
    p = k.spawn('unshare', '-m', 'sh', '-c',
                f'mount /dev/nbd{disk}p1 /mnt/private && echo ready && exec sleep 60')
    wait_until(lambda: 'ready' in p.output)
    assert k.holders(disk) == [('mount', f'nbd{disk}p1', p.pid, '/mnt/private')]
    p.kill()
    p.wait()
    wait_until(lambda: k.holders(disk) == [])


def test_processes_hold_the_device_whatever_the_name_they_opened_it_by(k, disk):
    k.guest.sh(f'mknod /run/alias b $(stat -c "0x%t 0x%T" /dev/nbd{disk}p1)')
    first = k.spawn(NBDKCLI, 'hold', f'path=/dev/nbd{disk}')
    second = k.spawn(NBDKCLI, 'hold', 'path=/run/alias')
    wait_until(lambda: 'ready' in first.output and 'ready' in second.output)
    both = [('process', f'nbd{disk}', first.pid, 'nbdkcli'),
            ('process', f'nbd{disk}p1', second.pid, 'nbdkcli')]
    assert sorted(k.holders(disk)) == both
    assert len(k.holders(disk, max=1)) == 1 and k.holders(disk, max=0) == []
    for p in (first, second):
        p.kill()
        p.wait()
    assert k.holders(disk) == []
    k.guest.run(['rm', '/run/alias'])


def test_devices_made_of_it_hold_the_device(k, disk):
    k.guest.sh(f'busybox losetup /dev/loop0 /dev/nbd{disk}p1')
    k.guest.sh(f'dmsetup create --noudevsync t --table "0 2048 linear /dev/nbd{disk} 0"')
    assert sorted(k.holders(disk)) == [('device', f'nbd{disk}', 0, 'dm-0'),
                                       ('device', f'nbd{disk}p1', 0, 'loop0')]
    k.guest.sh('dmsetup remove --noudevsync t; busybox losetup -d /dev/loop0')
    wait_until(lambda: k.holders(disk) == [])


def test_holders_are_told_while_the_server_is_away(k, watcher, server):
    index = k.connect(at(server))
    p = k.spawn(NBDKCLI, 'hold', f'path=/dev/nbd{index}')
    wait_until(lambda: 'ready' in p.output)
    server.kill()
    wait_until(lambda: 'dead' in watcher.output)
    watch = Stopwatch()
    assert k.holders(index) == [('process', f'nbd{index}', p.pid, 'nbdkcli')]
    assert watch.quiet() < 1
    p.kill()
    p.wait()


# ---- the network


def test_links_addresses_and_routes_that_appear_are_told_once(k, watcher):
    k.guest.sh('ip link add d0 type dummy; ip link set d0 up; ip addr add 10.9.8.7/24 dev d0;'
               'ip route add default via 10.9.8.1; ip route add 10.7.0.0/16 via 10.9.8.2;'
               'ip link set d0 mtu 1400; ip link set d0 down; ip link set lo down;'
               'ip link set lo up')
    wait_until(lambda: 'net lo: up' in watcher.output)
    told = [line for line in re.findall('net (.*)\n', watcher.output) if 'fe80' not in line]
    assert told == ['d0: up', 'd0: address 10.9.8.7', 'd0: route to 10.9.8.0/24',
                    'd0: default route', 'd0: route to 10.7.0.0/16', 'lo: up']
    k.guest.sh('ip link del d0')
