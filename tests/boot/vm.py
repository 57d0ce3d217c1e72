"""A real Debian in an emulated machine, its disks on NBD servers out here.

    with Vm(kernel, initrd, append, path) as vm:
        vm.wait_up()                            # systemd has started the agent
        vm.sh('nbdctl status')                  # its output; must succeed
        vm.off()                                # a clean shutdown

The agent is a static busybox in memory that reads commands from the second serial port: it
answers even while the root filesystem does not.  Servers on this machine's 127.0.0.1 are
at HOST in there.
"""
import contextlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import time

from tests.harness.guest import Slot, tied_to_us
from tests.harness.wait import Stopwatch, wait_until

HOST = '10.0.2.2'
BOOT_TIMEOUT = 400


def connected(path):
    """To a socket that QEMU makes, and listens on a moment later."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


class VmFailed(AssertionError):
    """The machine ended, hung, or a command in it failed; shows the console's end."""


class Vm:
    """Starts at once.  PATH is a directory for its files; DISKS are images given to it as
    virtio disks (written to: copies)."""

    def __init__(self, kernel, initrd, append, path, memory=640, disks=()):
        self.path = pathlib.Path(path)
        self.console_file = self.path / 'console'
        self.count, self.buffer = 0, b''
        self.serial, self.slot = None, Slot()
        agent = self.path / 'agent.sock'
        argv = [*tied_to_us(), 'qemu-system-x86_64', '-M', 'q35', '-m', str(memory),
                # Emulated, one plain CPU costs least: two wait for each other.
                '-cpu', 'qemu64,-svm', '-smp', '1',
                '-display', 'none', '-no-reboot', '-nodefaults',
                '-kernel', kernel, '-initrd', initrd,
                '-append', f'console=ttyS0 panic=-1 mitigations=off {append}',
                '-serial', f'file:{self.console_file}',
                '-serial', f'unix:{agent},server=on,wait=off',
                '-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0',
                '-device', 'virtio-rng-pci',
                '-qmp', f'unix:{self.path}/qmp.sock,server=on,wait=off']
        for disk in disks:
            argv += ['-drive', f'file={disk},format=raw,if=virtio,cache=unsafe']
        with open(self.path / 'qemu.out', 'wb') as out:
            self.qemu = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                         stdout=out, stderr=out, start_new_session=True)
        try:
            self.serial = wait_until(lambda: connected(agent), 30, 'qemu to start')
        except BaseException:
            self.close()
            raise

    # ---- the console

    def console(self):
        text = self.console_file.read_bytes().decode(errors='replace')
        return re.sub(r'\x1b\[[0-9;?]*[A-Za-z]|\r', '', text)

    def fail(self, why):
        raise VmFailed(f'{why}\nconsole:\n{self.console()[-6000:]}')

    def wait_console(self, text, timeout=BOOT_TIMEOUT):
        """Until TEXT, a regular expression, is on the console."""
        watch = Stopwatch()
        while not re.search(text, self.console()):
            if self.qemu.poll() is not None:
                self.fail(f'the machine ended before {text!r} was on its console')
            if watch.quiet() > timeout:
                self.fail(f'waited {timeout} s for {text!r} on the console')
            time.sleep(0.2)

    # ---- the agent

    def receive(self):
        self.serial.settimeout(1)
        try:
            data = self.serial.recv(65536)
        except socket.timeout:
            return
        if not data:
            self.fail('the machine has ended')
        self.buffer += data

    def wait_up(self, timeout=BOOT_TIMEOUT):
        """Until the agent answers."""
        watch = Stopwatch()
        while b'@agent@' not in self.buffer:
            if self.qemu.poll() is not None or watch.quiet() > timeout:
                self.fail(f'no agent within {timeout} s')
            self.receive()
        self.buffer = b''
        return self

    def start(self, script):
        """Begin a shell script; `finish` gives its end."""
        self.count += 1
        assert '\n' not in script, script
        line = f'( {script} ) </dev/null 2>&1; echo "@end{self.count}@$?@"\n'
        self.serial.sendall(line.encode())
        return self.count

    def finish(self, number, timeout=240):
        """(status, output) of the script NUMBER."""
        watch = Stopwatch()
        pattern = re.compile(rb'(?s)(.*?)@end%d@(\d+)@\r?\n' % number)
        while not (m := pattern.match(self.buffer)):
            if watch.quiet() > timeout:
                self.fail(f'a command takes longer than {timeout} s: {self.buffer!r}')
            self.receive()
        self.buffer = self.buffer[m.end():]
        return int(m[2]), m[1].decode(errors='replace').replace('\r', '')

    def try_sh(self, script, timeout=240):
        """(status, output)."""
        return self.finish(self.start(script), timeout)

    def sh(self, script, timeout=240):
        """The output of a shell script, which must succeed."""
        status, output = self.try_sh(script, timeout)
        if status != 0:
            self.fail(f'{script}: status {status}\n{output}')
        return output

    # ---- the machine itself

    @contextlib.contextmanager
    def monitor(self):
        """Tell QEMU something, or wait for something: tell('system_wakeup'), wait('SUSPEND')."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(self.path / 'qmp.sock'))
            file = sock.makefile('rw')

            def tell(command):
                print(json.dumps({'execute': command}), file=file, flush=True)

            def wait(event):
                while json.loads(file.readline()).get('event') != event:
                    pass
            tell('qmp_capabilities')
            yield tell, wait

    # ---- the end

    def off(self, timeout=400):
        """Shut down as a person would, and wait for the power to go."""
        self.start('systemctl poweroff')
        watch = Stopwatch()
        while self.qemu.poll() is None:
            if watch.quiet() > timeout:
                self.fail(f'still on {timeout} s after poweroff')
            time.sleep(0.2)

    def close(self):
        if self.serial:
            self.serial.close()
        if self.qemu.poll() is None:
            self.qemu.send_signal(signal.SIGTERM)
            try:
                self.qemu.wait(5)
            except subprocess.TimeoutExpired:
                self.qemu.kill()
                self.qemu.wait()
        self.slot.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
