"""Runs in a guest: stands for systemd."""
import os
import signal
import socket
import subprocess


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


def busy(argv):
    """Run ARGV, an nbdd, with the queue full that it talks to, until it logs that it is
    ready; then read the queue until that comes, too."""
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
        with subprocess.Popen(argv, env={**os.environ, 'NOTIFY_SOCKET': '@nbdd-test-busy'},
                              stderr=subprocess.PIPE, text=True) as p:
            try:
                while 'nbdd: ready: ' not in p.stderr.readline():
                    assert p.poll() is None
                while 'READY=1' not in (said := s.recv(4096).decode()):
                    pass
                return said
            finally:
                p.terminate()
