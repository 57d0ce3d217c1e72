"""The table of system calls: a name with a typo would be left out without a word."""
import ctypes
import re

import pytest

from tests.harness.paths import ROOT

UNKNOWN = -1                    # __NR_SCMP_ERROR; other negative ones exist elsewhere
AARCH64 = 0xc00000b7
SECCOMP = ctypes.CDLL('libseccomp.so.2')


def names():
    text = (ROOT / 'daemon/sandbox_rules.c').read_text()
    table = text[text.index('rules[] = {'):text.index('static int add_rule')]
    allowed = set(re.findall(r'\{ "(\w+)"', table))
    never = set(re.findall(r'"(\w+)"', table[table.index('never[]'):]))
    assert len(allowed) > 80 and len(never) > 50 and not allowed & never
    return allowed | never


def resolve(name, arch=None):
    if arch is None:
        return SECCOMP.seccomp_syscall_resolve_name(name.encode())
    return SECCOMP.seccomp_syscall_resolve_name_arch(arch, name.encode())


def test_every_name_is_that_of_a_system_call():
    assert resolve('no_such_call') == UNKNOWN
    assert [name for name in sorted(names()) if resolve(name) == UNKNOWN] == []


@pytest.mark.parametrize('name', '''read write sendmsg recvmsg sendto recvfrom ppoll close fcntl
    mmap munmap brk mremap mprotect madvise futex exit exit_group getrandom clock_gettime
    setsockopt getsockopt ioctl socket connect seccomp openat newfstatat readlinkat getdents64
    faccessat fsync rt_sigprocmask rt_sigreturn'''.split())
def test_what_64_bit_arm_uses_is_in_the_table(name):
    """There the C library has no other calls for these: no poll, open, stat, readlink."""
    assert name in names() and resolve(name, AARCH64) >= 0


MULTIPLEX = {'i386': 0x40000003, 'ppc64el': 0xc0000015, 's390x': 0x80000016}
ALONE = {'x86_64': 0xc000003e, 'aarch64': AARCH64}
SOCKET_CALLS = """socket bind connect listen accept getsockname getpeername socketpair send recv
    sendto recvfrom shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"""


def test_fcntl_is_limited_to_the_same_under_both_of_its_names():
    """Machines with 32 bits call fcntl64: F_SETOWN and F_SETSIG would signal others."""
    text = (ROOT / 'daemon/sandbox_rules.c').read_text()
    rows = re.findall(r'\{ "(fcntl(?:64)?)", (\w+)(?:, \{ IS\(2, (\w+)\) \})? \}', text)
    assert len(rows) == text.count('"fcntl')
    may = {name: {row[1:] for row in rows if row[0] == name} for name in ('fcntl', 'fcntl64')}
    assert may['fcntl'] == may['fcntl64'] and {roles for roles, _ in may['fcntl']} == {'ALL'}
    assert {command for _, command in may['fcntl']} == \
        {'F_GETFL', 'F_SETFL', 'F_GETFD', 'F_SETFD', 'F_DUPFD_CLOEXEC'}


@pytest.mark.parametrize('machine', MULTIPLEX)
def test_socket_calls_that_go_through_one_are_told_by_their_numbers(machine):
    """sandbox_rules.c counts on it: -101 and below, in the order of socketcall's numbers."""
    arch = MULTIPLEX[machine]
    assert resolve('socketcall', arch) >= 0
    for number, name in enumerate(SOCKET_CALLS.split(), 1):
        assert resolve(name, arch) == -100 - number


@pytest.mark.parametrize('machine', ALONE)
def test_where_no_call_stands_for_others_nothing_is_told_by_numbers(machine):
    assert resolve('socketcall', ALONE[machine]) < 0
    assert resolve('socket', ALONE[machine]) >= 0
