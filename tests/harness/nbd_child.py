"""One operation of the library in a process of its own, measured.

    python3 -m tests.harness.nbd_child OPERATION URI

Prints JSON: the error's text and errno (null: none), seconds, and by how many bytes the
process grew at its largest.  Address space is limited, so that a huge allocation fails even
if nobody touches it.
"""
import json
import resource
import sys
import time

from tests.harness.nbd_ctypes import (CONTEXT, EXTENT, LIST, Callback, Handle, NbdError,
                                      buffer)

ROOM = 128 << 20        # address space beyond what the process has at its start


class Unrecorded(Callback):
    """A callback that counts its calls and keeps nothing."""
    count = 0

    def _call(self, *arguments):
        self.count += 1
        return 0


def negotiate(h, uri):
    h.set_opt_mode(True)
    h.connect_uri(uri)


def connect(h, uri):
    h.add_meta_context("base:allocation")
    h.connect_uri(uri)


def read(h, uri):
    connect(h, uri)
    h.pread(buffer(4096), 4096, 0, 0)


def block_status(h, uri):
    connect(h, uri)
    h.block_status(65536, 0, Unrecorded(EXTENT), 0)


def whole_map(h, uri):
    """The status of all of an export, a request for each answer."""
    connect(h, uri)
    at, size = 0, h.get_size()

    class Sums(Callback):
        def _call(self, user_data, name, offset, entries, n, error):
            nonlocal at
            # Extents are alike: the first and the last tell for all of them.
            assert entries[0] == entries[n - 2]
            at = offset + entries[0] * (n // 2)
            return 0
    while at < size:
        h.block_status(min(size - at, 1 << 30), at, Sums(EXTENT), 0)
    assert at == size, at


def list_(h, uri):
    negotiate(h, uri)
    h.opt_list(Unrecorded(LIST))


def info(h, uri):
    h.set_full_info(True)
    negotiate(h, uri)
    h.opt_info()


def contexts(h, uri):
    negotiate(h, uri)
    h.opt_list_meta_context(Unrecorded(CONTEXT))


OPERATIONS = {"connect": connect, "read": read, "block-status": block_status,
              "whole-map": whole_map, "list": list_, "info": info, "contexts": contexts}


def memory(key):
    """Bytes by KEY of /proc/self/status: VmHWM, the largest resident size; VmSize."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(key + ":"))


def main(operation, uri):
    h = Handle()
    limit = memory("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before, began = memory("VmHWM"), time.monotonic()
    text = errno = None
    try:
        OPERATIONS[operation](h, uri)
    except NbdError as e:
        text, errno = e.text, e.errno
    print(json.dumps({"error": text, "errno": errno, "seconds": time.monotonic() - began,
                      "grown": memory("VmHWM") - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
