"""python3 -m tests.harness.guest_run [--memory SIZE] [--nbds-max N] COMMAND…

Boots a guest, runs COMMAND in it as root, shows its output as it comes, exits with its status.
The guest sees this machine's files, read-only; /tmp, /run and /mnt are its own.
"""
import argparse
import os
import sys

from tests.harness import pace
from tests.harness.guest import Guest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--memory', default='512M')
    parser.add_argument('--nbds-max', type=int, default=16)
    parser.add_argument('command', nargs=argparse.REMAINDER)
    args = parser.parse_args()
    pace.watch_machine()
    with Guest(memory=args.memory, nbds_max=args.nbds_max) as g:
        p = g.spawn(args.command, cwd=os.getcwd())
        with open(p.output_file, 'rb') as out:
            ended = False
            while True:
                data = out.read()
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
                if ended and not data:
                    return p.rc if p.rc >= 0 else 128 - p.rc
                ended = p.rc is not None
                g.pump(0.1)


if __name__ == '__main__':
    sys.exit(main())
