"""A program on a terminal of its own, of any size."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading


class Terminal:
    """Runs ARGV on a new terminal; `output` is all that it has written so far, `plain` the
    same without escape sequences."""

    def __init__(self, argv, columns=80, lines=24, env=None):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))
        self.master, self.data = master, b''
        self.process = subprocess.Popen(
            [str(a) for a in argv], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env={**os.environ, 'TERM': 'xterm', **(env or {})},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:                     # EIO: nobody has the other side any more
                return
            if not data:
                return
            self.data += data

    @property
    def output(self):
        return self.data.decode(errors='replace')

    @property
    def plain(self):
        return re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', self.output)

    def type(self, keys):
        os.write(self.master, keys.encode())

    def wait(self, timeout=20):
        """The exit status, when all output has been read."""
        status = self.process.wait(timeout)
        self.reader.join(timeout)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)
        os.close(self.master)
