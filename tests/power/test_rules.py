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
