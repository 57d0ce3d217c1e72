"""What the daemon uses, and how often it wakes up."""
import time

IDLE_SECONDS = 10
# kB by which the resident size may differ between two looks without anything growing.
NOISE = 256
LOOKS = 5
KIB_OF_ONE = 16 << 10


def descriptors(guest, pid):
    """How many there are, but for whoever asked for the status just before and has not been
    closed yet."""
    return min(len(guest.proc_fds(pid)) for _ in range(LOOKS))


class Cost:
    """What the daemon uses at this moment."""

    def __init__(self, guest, daemon):
        status = guest.proc_status(daemon.pid)
        self.rss = int(status['VmRSS'])
        self.fds = descriptors(guest, daemon.pid)
        self.children = len(guest.children(daemon.pid))
        self.threads = int(status['Threads'])

    def __repr__(self):
        return f'{self.rss} KiB, {self.fds} fds, {self.children} children, {self.threads} threads'


def wake_ups(guest, pid):
    """How often the process's threads have been put on the CPU, in all."""
    total = 0
    for task in guest.list(f'/proc/{pid}/task'):
        text = guest.read(f'/proc/{pid}/task/{task}/status')
        total += sum(int(line.split()[1]) for line in text.splitlines()
                     if 'ctxt_switches' in line)
    return total


def idle_wake_ups(guest, daemon):
    """Wake-ups in IDLE_SECONDS during which nobody asks anything."""
    before = wake_ups(guest, daemon.pid)
    time.sleep(IDLE_SECONDS)            # the length of the measurement
    return wake_ups(guest, daemon.pid) - before


def all_connected(daemon, count, outages=None):
    def reached():
        devices = daemon.status()
        states = [d['state'] for d in devices]
        assert len(devices) == count and set(states) == {'connected'}, \
            {s: states.count(s) for s in set(states)}
        if outages is not None:
            assert {d['outages']['count'] for d in devices} == {outages}
        return devices
    return reached
