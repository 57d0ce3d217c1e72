"""The harness keeps its own promises."""
import signal

import pytest

from tests.harness.proc import CommandFailed
from tests.harness.servers import Nbdkit, NbdServer, QemuNbd
from tests.harness.wait import Stopwatch, wait_until


def test_wait_until_returns_the_value_and_reports_the_last_one():
    assert wait_until(lambda: 7) == 7
    with pytest.raises(AssertionError, match=r'waited 0.1 s for a wonder; last value: \[\]'):
        wait_until(lambda: [], timeout=0.1, what='a wonder')


def test_wait_until_takes_an_os_error_for_not_yet():
    with pytest.raises(AssertionError, match='FileNotFoundError'):
        wait_until(lambda: open('/nonexistent'), timeout=0.1)


def test_host_runs_commands_and_reports_failures(host):
    assert host.sh('echo hello') == (0, 'hello\n')
    with pytest.raises(CommandFailed, match='status 3\nno luck'):
        host.sh('echo no luck; exit 3')


def test_host_close_reports_processes_left_behind():
    from tests.harness.proc import Host
    h = Host()
    h.sh('sleep 1000 & true')
    with pytest.raises(AssertionError, match='left behind.*sleep'):
        h.close()


@pytest.mark.parametrize('tcp', [False, True], ids=['unix', 'tcp'])
@pytest.mark.parametrize('kind', [Nbdkit, QemuNbd, NbdServer])
def test_servers_start_die_and_return_on_their_address(host, kind, tcp):
    image = host.path / 'image'
    image.write_bytes(bytes(1 << 20))
    what = {Nbdkit: ['file', str(image)], QemuNbd: image,
            NbdServer: {'disk': {'exportname': image}}}[kind]
    with kind(host, what, tcp=tcp) as server:
        uri = server.uri
        assert host.run(['nbdinfo', '--size', uri]).out == '1048576\n'
        server.kill()
        assert server.process.rc is not None
        assert host.run(['nbdinfo', '--size', uri], check=False).rc != 0
        process = server.start().process
        assert server.uri == uri
        assert host.run(['nbdinfo', '--size', uri]).out == '1048576\n'
        assert server.start().process is process and process.rc is None


@pytest.mark.guest
class TestGuest:
    def test_commands_run_with_their_status_and_output(self, guest):
        assert guest.run(['uname', '-s']).out == 'Linux\n'
        assert guest.sh('echo $X; pwd', env={'X': 'a b'}, cwd='/tmp').out == 'a b\n/tmp\n'
        with pytest.raises(CommandFailed, match='status 3'):
            guest.sh('exit 3')
        assert guest.run(['nosuchprogram'], check=False).rc == 127

    def test_a_background_process_can_be_signalled(self, guest):
        p = guest.spawn(['sleep', '1000'])
        assert p.rc is None
        p.kill(signal.SIGSTOP)
        wait_until(lambda: guest.proc_status(p.pid)['State'].startswith('T'))
        p.kill(signal.SIGKILL)
        assert p.wait() == -signal.SIGKILL

    def test_a_command_that_does_not_end_fails_in_time(self, guest):
        watch = Stopwatch()
        with pytest.raises(AssertionError, match='still runs in the guest after 0.5 s'):
            guest.run(['sleep', '1000'], timeout=0.5)
        assert watch.quiet() < 5

    def test_it_has_its_own_kernel_with_nbd_devices(self, guest):
        assert guest.exists('/sys/block/nbd15')
        assert guest.block(0, 'size') == '0'
        assert 'User Mode Linux' in guest.dmesg() or 'Linux version' in guest.dmesg()

    def test_the_root_is_read_only_and_the_shared_directory_is_not(self, guest):
        assert guest.sh('touch /etc/nbdd-test', check=False).rc != 0
        guest.sh(f'echo from the guest > {guest.path}/x')
        assert (guest.path / 'x').read_text() == 'from the guest\n'

    def test_missing_files_are_os_errors(self, guest):
        with pytest.raises(FileNotFoundError):
            guest.read('/proc/nosuchfile')

    def test_servers_run_inside(self, guest):
        with Nbdkit(guest, ['memory', '1M'], tcp=True) as server:
            assert guest.run(['nbdinfo', '--size', server.uri]).out == '1048576\n'

    def test_python_functions_run_inside(self, guest):
        assert guest.python('os:getpid') > 1
        assert guest.python('os.path:join', a='x') == 'x'
        with pytest.raises(RuntimeError, match='FileNotFoundError'):
            guest.python('os:stat', path='/nosuchfile')

    def test_long_requests_arrive_whole(self, guest):
        for length in (100, 2990, 4096, 9000, 60000):
            assert len(guest.run(['echo', 'x' * length]).out) == length + 1
            assert guest.python('os.path:basename', p='/' + 'y' * length) == 'y' * length
        guest.write('/tmp/long', 'z' * 10000)
        assert guest.read('/tmp/long') == 'z' * 10000

    def test_a_large_answer_arrives_whole(self, guest):
        assert len(guest.read('/proc/kallsyms')) > 100000

    def test_two_guests_live_side_by_side(self, boot, guest):
        other = boot(memory='256M', nbds_max=3)
        assert other.exists('/sys/block/nbd2') and not other.exists('/sys/block/nbd3')
        assert guest.exists('/sys/block/nbd3')
