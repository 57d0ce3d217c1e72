"""Runs in a guest: stands for systemd."""
import os
import signal
import socket
import subprocess
import time


def listen(argv):
    """Run ARGV until it has a status, end it, and return what it said."""
    said = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind('\0nbdd-test-notify')
        s.settimeout(20)
        p = subprocess.Popen(argv, env={**os.environ, 'NOTIFY_SOCKET': '@nbdd-test-notify'},
                             stdout=subprocess.DEVNULL)
        while len(said) < 2:
            said += s.recv(4096).decode().split('\n')
        p.send_signal(signal.SIGTERM)
        while said[-1] != 'STOPPING=1':
            said += s.recv(4096).decode().split('\n')
        assert p.wait(20) == 0
    return said


def busy(argv, status):
    """Run ARGV, an nbdd, with the queue full that it talks to and a watchdog, until it logs
    that it is ready.  STATUS asks it something, past several times of the watchdog's; then
    read the queue until READY comes, and the watchdog is fed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        s.bind('\0nbdd-test-busy')
        s.settimeout(20)
        full.setblocking(False)
        try:
            while True:
                full.sendto(b'full', '\0nbdd-test-busy')
        except BlockingIOError:
            pass
        env = {'NOTIFY_SOCKET': '@nbdd-test-busy', 'WATCHDOG_USEC': '300000'}
        with subprocess.Popen(argv, env={**os.environ, **env}, stderr=subprocess.PIPE,
                              text=True) as p:
            try:
                while 'nbdd: ready: ' not in p.stderr.readline():
                    assert p.poll() is None
                for _ in range(5):
                    time.sleep(0.1)
                    subprocess.run(status, check=True, timeout=20, stdout=subprocess.DEVNULL)
                said = set()
                while not said >= {'READY=1', 'WATCHDOG=1'}:
                    said.add(s.recv(4096).decode())
                return sorted(said)
            finally:
                p.terminate()
