"""Ways to a server: URI, TCP, Unix and vsock sockets, a given socket, commands, socket
activation; and the errors of each."""
import errno
import fcntl
import os
import signal
import socket
import stat

import pytest

from tests.harness.nbd_ctypes import Handle, NbdError
from tests.harness.script_server import Export
from tests.harness.wait import wait_until
from tests.proto.marks import better, needs


def fails(h, name, *arguments):
    with pytest.raises(NbdError) as e:
        h.call(name, *arguments)
    assert e.value.text.startswith(f"nbd_{name}: ")
    return e.value


# URIs -------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", [
    "nbd+unix:///?socket={path}", "nbd+unix://?socket={path}",
    "nbd+unix:///?socket={path}&unknown=1#fragment",
    "nbd+unix:///?unknown=1&socket={path}", "nbd+unix:///?socket={path}&tls-verify-peer=maybe"])
def test_uri_of_a_unix_socket(serve, handle, form):
    server, h = serve(), handle()
    h.connect_uri(form.format(path=server.path))
    assert h.aio_is_ready() and h.get_export_name() == ""
    assert h.get_uri() == f"nbd+unix:///?socket={server.path}"


@pytest.mark.parametrize("form", ["nbd://127.0.0.1:{port}", "nbd://127.0.0.1:{port}/",
                                  "nbd://localhost:{port}/"])
def test_uri_of_a_tcp_socket(serve, handle, form):
    server, h = serve(listen="tcp"), handle()
    h.connect_uri(form.format(port=server.port))
    assert h.get_uri() == form.format(port=server.port).rstrip("/") + "/"


@pytest.mark.parametrize("path, name", [
    ("", ""), ("/", ""), ("/disk", "disk"), ("//", "/"), ("//a/b", "/a/b"),
    ("/%61b%2fc", "ab/c"), ("/%C3%BC", "ü"), ("/a%20b", "a b"), ("/a+b", "a+b")])
def test_export_name_is_the_path_decoded_without_its_first_slash(serve, handle, path, name):
    server, h = serve(exports={name: Export()}), handle()
    h.connect_uri(f"nbd+unix://{path}?socket={server.path}")
    assert h.get_export_name() == name


def test_uri_of_an_export_leads_back_to_it(serve, handle):
    for name in ("disk", "a b", "ü/%?#&"):
        server, first, second = serve(exports={name: Export()}), handle(), handle()
        first.set_export_name(name)
        first.connect_unix(server.path)
        second.connect_uri(first.get_uri())
        assert second.get_export_name() == name


@pytest.mark.parametrize("uri, text", [
    ("nbd+tcp://localhost", "unknown NBD URI scheme: nbd+tcp"),
    ("http://localhost", "unknown NBD URI scheme: http"),
    ("localhost:10809", "unknown NBD URI scheme: localhost"),
    ("/tmp/socket", "NBD URI does not have a scheme"),
    ("", "NBD URI does not have a scheme"),
    ("nbd:unix:/tmp/s", "URI must begin with 'nbd://'"),
    ("nbd:localhost:1", "URI must begin with 'nbd://'"),
    ("nbd://a b", "unable to parse URI"),
    ("nbd+unix:///", "cannot parse socket parameter"),
    ("nbd://localhost/?socket=/tmp/s", "socket parameter"),
    ("nbd+vsock://x:1/", "cannot parse vsock CID"),
])
def test_bad_uri_is_einval_with_the_reason(handle, uri, text):
    h = handle()
    e = fails(h, "connect_uri", uri)
    assert e.errno == errno.EINVAL
    assert text in e.text
    assert h.aio_is_created()


def test_path_as_uri_is_answered_with_a_hint(handle):
    assert "nbd+unix://?socket=PATH" in fails(handle(), "connect_uri", "/tmp/socket").text


@better("the other connects to some other port")
@pytest.mark.parametrize("port", ["65536", "99999", "-1", "1x"])
def test_port_out_of_range_is_refused(handle, port):
    fails(handle(), "connect_uri", f"nbd://localhost:{port}/")


@pytest.mark.parametrize("setting, value, uri, text", [
    ("uri_allow_transports", 1, "nbd+unix:///?socket=/s", "URI transport nbd+unix"),
    ("uri_allow_transports", 6, "nbd://localhost", "URI transport nbd "),
    ("uri_allow_transports", 3, "nbd+vsock://1:1", "URI transport nbd+vsock"),
    ("uri_allow_tls", 2, "nbd+unix:///?socket=/s", "URI TLS setting nbd+unix"),
    ("uri_allow_tls", 0, "nbds+unix:///?socket=/s", "URI TLS setting nbds+unix"),
    ("uri_allow_local_file", 0, "nbds://h/?tls-psk-file=/f", "tls-psk-file"),
    ("uri_allow_local_file", 0, "nbds://h/?tls-certificates=/f", "tls-certificates"),
])
def test_uri_beyond_what_is_allowed_is_eperm(handle, setting, value, uri, text):
    h = handle(**{setting: value})
    e = fails(h, "connect_uri", uri)
    assert e.errno == errno.EPERM and text in e.text
    assert h.aio_is_created()


def test_local_files_are_allowed_when_set(serve, handle):
    server, h = serve(), handle(uri_allow_local_file=True)
    h.connect_uri(server.uri(query="&tls-psk-file=/tmp/x"))
    assert h.get_uri() == server.uri(query="&tls-psk-file=/tmp/x")


@needs("is_uri")
@pytest.mark.parametrize("text, verdict", [
    ("nbd://localhost", 1), ("nbds+unix:///?socket=x", 1), ("/dev/nbd0", 0), ("file", 0)])
def test_is_uri_looks_at_the_form(handle, text, verdict):
    assert handle().is_uri(text) == verdict


# Sockets ----------------------------------------------------------------------------------

@pytest.mark.parametrize("listen", ["unix", "tcp", "tcp:[::1]:0"])
def test_connecting_in_each_family(serve, handle, listen):
    if "::1" in listen and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    server, h = serve(listen=listen), handle()
    if server.path:
        h.connect_unix(server.path)
    else:
        h.connect_tcp(server.host, str(server.port))
    assert h.read(0, 8) == bytes(8)


def test_every_address_of_a_name_is_tried(serve, handle):
    """localhost is ::1 first on most machines; the server listens on 127.0.0.1 only."""
    server, h = serve(listen="tcp"), handle()
    h.connect_tcp("localhost", str(server.port))
    assert h.read(0, 8) == bytes(8)


def test_tcp_sends_without_delay(serve, handle):
    server, h = serve(listen="tcp"), handle()
    h.connect_uri(server.uri())
    with socket.socket(fileno=os.dup(h.aio_get_fd())) as s:
        assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("name, values, code, text", [
    ("connect_unix", ("/nonexistent/socket",), errno.ENOENT, "connect: "),
    ("connect_unix", ("/" + "x" * 200,), errno.ENAMETOOLONG, "socket name too long: /xxx"),
    ("connect_tcp", ("127.0.0.1", "1"), errno.ECONNREFUSED,
     "connect: 127.0.0.1:1: could not connect to remote host"),
    ("connect_socket", (-1,), errno.EBADF, "fcntl: set O_NONBLOCK"),
    ("connect_command", ([],), errno.EINVAL, "missing command name in argv list"),
    ("connect_systemd_socket_activation", ([],), errno.EINVAL,
     "missing command name in argv list"),
])
def test_failure_to_connect(handle, name, values, code, text):
    e = fails(handle(), name, *values)
    assert e.errno == code
    assert text in e.text


def test_refused_unix_socket(handle, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        assert fails(handle(), "connect_unix", path).errno == errno.ECONNREFUSED


def test_a_given_socket_belongs_to_the_library(serve, handle):
    server, h = serve(), handle()
    sock = server.connected_socket()
    fd = sock.detach()
    h.connect_socket(fd)
    assert h.read(0, 8) == bytes(8)
    assert h.aio_get_fd() == fd
    with pytest.raises(NbdError):       # there is no URI for it
        h.get_uri()
    h.close()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_descriptors_are_not_inherited(serve, handle):
    server, h = serve(), handle()
    h.connect_uri(server.uri())
    assert fcntl.fcntl(h.aio_get_fd(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_no_descriptor_is_leaked_by_any_way_of_ending(serve, tmp_path):
    def count():
        return len(os.listdir("/proc/self/fd"))

    server = serve()
    before = None
    for n in range(6):
        with Handle() as h:
            h.connect_uri(server.uri())
            if n % 2:
                h.shutdown(0)
        with Handle() as h, pytest.raises(NbdError):
            h.connect_unix(str(tmp_path / "none"))
        with Handle() as h:
            h.aio_connect_uri(server.uri())
        with Handle() as h, pytest.raises(NbdError):
            h.connect_command(["/nonexistent"])
        server.wait_for(lambda: all(s.ended for s in server.sessions))
        if n == 1:
            before = count()
    # The server's side is in this process, too, and may take a moment to close.
    wait_until(lambda: count() <= before, 10, 'every descriptor to be closed')


# Commands ---------------------------------------------------------------------------------

NBDKIT = ["nbdkit", "-s", "--exit-with-parent", "memory", "1M"]


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def child_of(name):
    """The pid of our child called NAME."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                text = f.read()
        except OSError:
            continue
        if f"({name})" in text and int(text.rsplit(")", 1)[1].split()[1]) == os.getpid():
            return int(pid)
    return None


def test_command_speaks_on_stdin_and_stdout_and_ends_at_close(handle):
    h = handle()
    h.connect_command(NBDKIT)
    pid = child_of("nbdkit")
    h.write(0, b"command")
    assert h.read(0, 7) == b"command"
    assert pid
    h.close()
    assert gone(pid)


def test_command_that_does_not_exist(handle, capfd):
    h = handle()
    e = fails(h, "connect_command", ["/nonexistent"])
    assert e.errno == 0 and "server disconnected unexpectedly" in e.text
    assert h.aio_is_dead()
    assert "/nonexistent: No such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize("argv", [["true"], ["sh", "-c", "exit 3"], ["sh", "-c", "kill $$"]])
def test_command_that_ends_at_once(handle, argv):
    h = handle()
    assert "disconnected unexpectedly" in fails(h, "connect_command", argv).text
    assert h.aio_is_dead()


def test_command_can_be_signalled(handle):
    h = handle()
    h.connect_command(NBDKIT)
    h.kill_subprocess(signal.SIGKILL)
    with pytest.raises(NbdError):
        while True:
            h.read(0, 8)
    h.close()


def test_command_gets_no_descriptor_but_its_own(handle, tmp_path):
    listing = tmp_path / "fds"
    h = handle()
    with pytest.raises(NbdError):
        h.connect_command(["sh", "-c", f"ls /proc/self/fd > {listing}"])
    h.close()
    assert set(listing.read_text().split()) <= {"0", "1", "2", "3"}


@needs("get_subprocess_pid")
def test_pid_of_the_command_is_told(handle):
    h = handle()
    h.connect_command(NBDKIT)
    assert h.get_subprocess_pid() == child_of("nbdkit")


def test_socket_activation(handle):
    h = handle()
    h.connect_systemd_socket_activation(["nbdkit", "memory", "1M"])
    pid = child_of("nbdkit")
    path = h.get_uri().partition("socket=")[2]
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert h.get_size() == 1 << 20
    h.close()
    assert gone(pid) and not os.path.exists(os.path.dirname(path))


def test_socket_activation_environment(handle, tmp_path):
    out = tmp_path / "env"
    h = handle()
    with pytest.raises(NbdError):
        h.connect_systemd_socket_activation(
            ["sh", "-c", f"echo $LISTEN_PID $$ $LISTEN_FDS ${{LISTEN_FDNAMES-unset}} > {out}"])
    h.close()
    pid, own, fds, names = out.read_text().split()
    assert (pid, fds) == (own, "1") and names in ("unset", "unknown")


@needs("set_socket_activation_name")
def test_socket_activation_with_a_name(handle, tmp_path):
    out = tmp_path / "env"
    h = handle()
    h.set_socket_activation_name("hello")
    assert h.get_socket_activation_name() == "hello"
    with pytest.raises(NbdError):
        h.connect_systemd_socket_activation(["sh", "-c", f"echo $LISTEN_FDNAMES > {out}"])
    h.close()
    assert out.read_text() == "hello\n"


def test_socket_activation_of_a_command_that_does_not_exist(handle):
    h = handle()
    fails(h, "connect_systemd_socket_activation", ["/nonexistent"])
    assert h.aio_is_dead()


def test_no_zombie_is_left(handle):
    for _ in range(3):
        h = handle()
        with pytest.raises(NbdError):
            h.connect_command(["true"])
        h.close()
    wait_until(lambda: child_of("true") is None)


def test_vsock_without_a_server_is_an_error(handle):
    h = handle()
    try:
        socket.socket(socket.AF_VSOCK).close()
    except OSError:
        pytest.skip("this kernel has no vsock")
    fails(h, "connect_uri", "nbd+vsock://2:1/")
