"""What may go wrong around attached devices, as a table, and plans drawn from a seed.

A fault is a function that lets it begin in a World and returns how it ends (or None); random
choices within it come from the generator that it gets."""
import collections
import random
import signal

Fault = collections.namedtuple('Fault', 'name begin alone last')
FAULTS = []


def fault(begin=None, alone=False, last=False):
    """Enter BEGIN into the table.  ALONE: what it checks of itself bears no other beside it;
    LAST: it begins after the others of its step, for it takes what they leave."""
    if begin is None:
        return lambda function: fault(function, alone, last)
    FAULTS.append(Fault(begin.__name__, begin, alone, last))
    return begin


# ---- processes

@fault
def server_killed(world, rng):
    server = rng.choice(world.servers)
    server.kill()
    return server.start


@fault
def server_asked_to_end(world, rng):
    """qemu-nbd may not end when it is asked while a client shakes hands; then it is killed, as
    systemd does."""
    server = world.polite
    try:
        server.kill(signal.SIGTERM)
    except AssertionError as e:
        print(str(e).splitlines()[0])
        server.kill()
    return server.start


@fault
def servers_hang(world, rng):
    some = rng.sample(world.servers, rng.randint(1, len(world.servers)))
    for server in some:
        server.stop()
    return lambda: [server.cont() for server in some]


@fault
def nbdd_killed(world, rng):
    world.daemon.kill(signal.SIGKILL)


@fault
def nbdd_restarted(world, rng):
    world.daemon.kill(signal.SIGTERM)


@fault
def nbdd_hangs(world, rng):
    pid = world.daemon.pid
    world.guest.kill(pid, signal.SIGSTOP)
    return lambda: world.guest.kill(pid, signal.SIGCONT)


@fault
def children_killed(world, rng):
    """Connectors and errands: they are there only after a death, so there is one first."""
    server, stopped = rng.choice(world.servers), set()
    server.kill()
    server.start()
    for _ in range(20):
        for pid in world.guest.children(world.daemon.pid):
            sig = rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
            world.guest.kill(pid, sig)
            if sig == signal.SIGSTOP:
                stopped.add(pid)
    # A connector that hangs has a limit; a relay waits, as a server that hangs may.
    return lambda: [world.guest.kill(pid, signal.SIGCONT) for pid in stopped]


@fault
def spawner_killed(world, rng):
    """With the connectors that are its children; its keeper makes another."""
    pid = world.daemon.spawner
    if pid:
        world.guest.kill(pid, rng.choice([signal.SIGKILL, signal.SIGSEGV]))


@fault
def keeper_killed(world, rng):
    """What it kept goes on; the next nbdd has both again."""
    pid = world.daemon.keeper
    if pid:
        world.guest.kill(pid, signal.SIGKILL)
    return lambda: world.daemon.kill(signal.SIGTERM)


@fault
def relays_killed(world, rng):
    for pid, (name, _, _) in world.guest.processes().items():
        if name.startswith('relay'):
            world.guest.kill(pid, rng.choice([signal.SIGKILL, signal.SIGTERM]))


# ---- the network

@fault
def network_down(world, rng):
    world.guest.run(['ip', 'link', 'set', 'lo', 'down'])
    return lambda: world.guest.run(['ip', 'link', 'set', 'lo', 'up'])


@fault
def network_bad(world, rng):
    how = rng.choice([['delay', '40ms', '20ms'], ['loss', '5%'], ['duplicate', '5%'],
                      ['delay', '5ms', 'reorder', '25%']])
    world.guest.run(['tc', 'qdisc', 'replace', 'dev', 'lo', 'root', 'netem', *how])
    # Two decks meet in a step: it may be there twice.
    return lambda: world.guest.run(['tc', 'qdisc', 'del', 'dev', 'lo', 'root'], check=False)


def order(world, word):
    world.tell_proxy(word)
    return lambda: world.tell_proxy('pass')


@fault
def connections_reset(world, rng):
    return order(world, 'reset')


@fault
def proxy_refuses(world, rng):
    world.tell_proxy('reset')
    return order(world, 'refuse')


@fault
def proxy_holds(world, rng):
    return order(world, 'hold')


@fault
def handshake_corrupt(world, rng):
    world.cut_proxied()
    return order(world, f'corrupt {rng.randrange(1 << 30)}')


@fault
def handshake_cut(world, rng):
    world.cut_proxied()
    return order(world, f'half {rng.randrange(1, 70)}')


# ---- a server with other properties

def other_server(world, **changes):
    """The polite server becomes another; what is not the same is refused by nbdd."""
    server = world.polite
    right = {name: getattr(server, name) for name in changes}
    server.restart(**changes)
    return lambda: server.restart(**right)


@fault(alone=True)
def server_read_only(world, rng):
    undo = other_server(world, options=['-r'])
    world.wait_refused('read-only')
    return undo


@fault(alone=True)
def server_of_another_size(world, rng):
    megabytes = rng.choice([1, 95, 97, 500])
    world.guest.run(['truncate', '-s', f'{megabytes}M', '/tmp/other'])
    undo = other_server(world, image='/tmp/other')
    world.wait_refused(str(megabytes))
    return undo


@fault
def server_without_the_export(world, rng):
    return other_server(world, export='other')


# ---- the machine

@fault
def run_full(world, rng):
    world.guest.sh('dd if=/dev/zero of=/run/full bs=64k 2>/dev/null', check=False, timeout=60)
    return lambda: world.guest.run(['rm', '-f', '/run/full'])


@fault
def no_descriptors(world, rng):
    pid = world.daemon.pid
    few = len(world.guest.proc_fds(pid)) + rng.randint(0, 3)
    before = world.guest.read(f'/proc/{pid}/limits')
    hard = next(line for line in before.splitlines() if 'open files' in line).split()[4]
    world.guest.run(['prlimit', f'--pid={pid}', f'--nofile={few}:{hard}'])
    return lambda: world.guest.run(['prlimit', f'--pid={pid}', f'--nofile={hard}:{hard}'],
                                   check=False)       # a new one may run by then


@fault(last=True)       # a tmpfs that is filled after it leaves the kernel nothing: it panics
def memory_tight(world, rng):
    free = int(next(line for line in world.guest.read('/proc/meminfo').splitlines()
                    if line.startswith('MemAvailable')).split()[1])
    fill = max(free - 48 * 1024, 0) // 1024
    world.guest.sh(f'dd if=/dev/zero of=/dev/shm/full bs=1M count={fill} 2>/dev/null',
                   check=False, timeout=60)
    return lambda: world.guest.run(['rm', '-f', '/dev/shm/full'])


@fault
def clock_jumps(world, rng):
    days = rng.choice([-3650, -1, 1, 3650])
    world.guest.sh(f'date -s "{days} days"')
    # Certificates of TLS are right again after it.
    return lambda: world.guest.sh(f'date -s "{-days} days"')


@fault(alone=True)      # it waits for answers, which there are none of without descriptors
def control_socket_crowded(world, rng):
    world.guest.python('tests.kernel.inside:crowd', path=world.daemon.socket, clients=280)


# ---- plans

def plan(seed):
    """Without an end: lists of (fault, generator) that are to be at work together, and how
    long.  The same seed gives the same plan, whatever comes of it."""
    rng = random.Random(seed)
    deck = []
    while True:
        step = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            if not deck:
                deck = rng.sample(FAULTS, len(FAULTS))
            if step and (deck[-1].alone or step[0][0].alone):
                break
            step.append((deck.pop(), random.Random(rng.random())))
        yield sorted(step, key=lambda drawn: drawn[0].last), rng.choice([0, 0.2, 1, 2])
