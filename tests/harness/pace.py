"""A clock that goes slower when the machine gives its processes less than CPUs of their own.

Other tests run beside this one, and the host of a virtual machine may take its CPUs away: what
takes a second on a quiet machine takes several then.  A limit on how long something may take
is for a machine that is quiet, so it is held against this clock: a second of it is the time
in which a process that always wants a CPU has had one for a second.  On a quiet machine that
is a second.
"""
import bisect
import os
import threading
import time

INTERVAL = 0.2          # seconds between looks at /proc/stat
KEPT = 6000             # looks, twenty minutes
SLOWEST = 10            # times: or what hangs on a machine that is stuck would never be found


class Pace:
    """READ gives (CPU time of all and time stolen of it, in the same unit, processes that run
    or want to, CPUs)."""

    def __init__(self, read, clock=time.monotonic):
        self.read, self.clock = read, clock
        self.at, self.own, self.slowness = [clock()], [0.0], 1.0
        self.total, self.stolen, _, _ = read()
        self.lock = threading.Lock()

    def look(self):
        total, stolen, running, cpus = self.read()
        passed, taken = total - self.total, stolen - self.stolen
        self.total, self.stolen = total, stolen
        left = 1 - min(taken / passed, 0.9) if passed > 0 else 1
        self.slowness = min(max(1, running / cpus) / left, SLOWEST)
        now = self.clock()
        with self.lock:
            self.own.append(self.own[-1] + (now - self.at[-1]) / self.slowness)
            self.at.append(now)
            del self.at[:-KEPT], self.own[:-KEPT]

    def now(self):
        """Seconds of this clock."""
        with self.lock:
            return self.of(self.clock())

    def of(self, moment):
        """What this clock showed at MOMENT of the other one, as far as is remembered."""
        n = bisect.bisect(self.at, moment)
        if n == 0:
            return self.own[0]
        if n == len(self.at):
            return self.own[-1] + (moment - self.at[-1]) / self.slowness
        share = (moment - self.at[n - 1]) / (self.at[n] - self.at[n - 1])
        return self.own[n - 1] + share * (self.own[n] - self.own[n - 1])

    def least(self, seconds, since):
        """What takes SECONDS, and happened at some time after SINCE: how long it was by this
        clock, at least."""
        with self.lock:
            last = self.clock() - seconds
            starts = [since, last, *(t for t in self.at if since < t < last)]
            return min(self.of(t + seconds) - self.of(t) for t in starts)


def read_proc_stat():
    cpu, running = None, 0
    with open('/proc/stat', encoding='ascii') as file:
        for line in file:
            words = line.split(maxsplit=10)
            if words[0] == 'cpu':
                cpu = [int(w) for w in words[1:9]]
            elif words[0] == 'procs_running':
                running = int(words[1])
    return sum(cpu), cpu[7], running - 1, os.cpu_count() or 1       # we ourselves run, too


MACHINE = Pace(read_proc_stat)


def watch_machine():
    """From now on MACHINE is looked at; before, it is a quiet one."""
    def look():
        while True:
            time.sleep(INTERVAL)
            MACHINE.look()
    threading.Thread(target=look, name='pace', daemon=True).start()
