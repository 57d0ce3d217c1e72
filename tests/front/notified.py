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
