"""As much of systemd as a socket-activated service needs: listens on a path for messages
(SOCK_SEQPACKET), and starts a command with that socket, again whenever it ends.

    python3 activated.py PATH UID COMMAND...

The path is UID's alone.  Says on standard output `activated: started PID` and `activated:
ready PID`.  SIGTERM ends it, and the command by SIGKILL; the path goes.
"""
import os
import signal
import socket
import sys
import time

FIRST_FD = 3
PAUSE = 0.1             # RestartSec= of the unit


def become(command, listen, **environment):
    """In a fork: COMMAND with the socket LISTEN, as systemd passes it."""
    fd = os.dup2(listen.fileno(), 500)
    os.dup2(fd, FIRST_FD)
    os.closerange(FIRST_FD + 1, 1000)
    os.execve(command[0], command, {**os.environ, **environment, 'LISTEN_FDS': '1',
                                    'LISTEN_PID': str(os.getpid())})


def start(command, listen, notify):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        become(command, listen, NOTIFY_SOCKET=notify)
    print('activated: started', pid, flush=True)
    return pid


def main(path, uid, command):
    listen = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listen.bind(path)
    os.chmod(path, 0o600)
    os.chown(path, uid, uid)
    listen.listen(16)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(f'{path}.notify')
    os.chmod(f'{path}.notify', 0o666)
    pid = None

    def end(*_):
        os.kill(pid, signal.SIGKILL)
        os.unlink(path)
        os.unlink(f'{path}.notify')
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    while True:
        pid = start(command, listen, f'{path}.notify')
        if notify.recv(4096) == b'READY=1':
            print('activated: ready', pid, flush=True)
        os.waitpid(pid, 0)
        time.sleep(PAUSE)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
