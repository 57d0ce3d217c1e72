"""Units as the machine would have them: ours, and what generators make of sample files."""
import os
import re
import subprocess

from tests.harness.paths import BUILD

FSTAB_GENERATOR = '/lib/systemd/system-generators/systemd-fstab-generator'
SYSTEM = '/lib/systemd/system'


class Units:
    """Below DIRECTORY; `problems` is what the generator said."""

    def __init__(self, directory, nbdtab='', conf='', fstab='', root=None, options=()):
        self.path = directory
        for name in ('normal', 'early', 'late', 'ours'):
            (directory / name).mkdir(parents=True)
        for unit in (BUILD / 'systemd').iterdir():
            (directory / 'ours' / unit.name).write_text(
                unit.read_text().replace('/usr/local/sbin', str(BUILD)))
        for name, text in (('nbdtab', nbdtab), ('nbdd.conf', conf), ('fstab', fstab)):
            (directory / name).write_text(text)
        directories = [directory / d for d in ('normal', 'early', 'late')]
        subprocess.run([FSTAB_GENERATOR, *directories], check=True, capture_output=True,
                       env={**os.environ, 'SYSTEMD_FSTAB': str(directory / 'fstab')})
        self.add_swaps(fstab)
        self.made = set()
        self.made = self.files()
        r = subprocess.run([BUILD / 'nbdd-generator', f'--config={directory}/nbdd.conf',
                            f'--nbdtab={directory}/nbdtab', f'--fstab={directory}/fstab',
                            *([f'--root={root}'] if root else []), *options, *directories],
                           capture_output=True, text=True)
        assert r.returncode == 0, r.stderr
        self.problems = r.stderr

    def add_swaps(self, fstab):
        """In a container systemd's generator leaves swap out; this is what it makes else."""
        for line in fstab.splitlines():
            what, _, kind, options = line.split()[:4]
            if kind != 'swap':
                continue
            name = what.strip('/').replace('-', '\\x2d').replace('/', '-') + '.swap'
            unit = self.path / 'normal' / name
            if unit.exists():
                continue
            unit.write_text(f'[Unit]\nSourcePath={self.path}/fstab\n[Swap]\nWhat={what}\n')
            if 'noauto' not in options.split(','):
                kind = 'wants' if 'nofail' in options.split(',') else 'requires'
                target = self.path / 'normal' / f'swap.target.{kind}'
                target.mkdir(exist_ok=True)
                (target / name).symlink_to(f'../{name}')

    def files(self):
        """What ours has made, below normal and early."""
        return {str(p.relative_to(self.path)) for d in ('normal', 'early')
                for p in (self.path / d).rglob('*') if not p.is_dir()} - self.made

    def verify(self, *units, debug=False):
        search = [self.path / 'early', self.path / 'ours', self.path / 'normal', SYSTEM,
                  self.path / 'late']
        env = {**os.environ, 'SYSTEMD_UNIT_PATH': ':'.join(map(str, search)),
               'SYSTEMD_COLORS': '0', 'SYSTEMD_LOG_LEVEL': 'debug' if debug else 'info'}
        return subprocess.run(['systemd-analyze', 'verify', '--man=no', *units], env=env,
                              capture_output=True, text=True)

    def facts(self, unit):
        """What systemd knows of UNIT: {'After': {'a', …}, 'Wants': …, a setting: {…}}."""
        r = self.verify(unit, debug=True)
        dump = re.search(rf'^\t-> Unit {re.escape(unit)}:\n(.*?)(?=^\t-> Unit |\Z)', r.stdout,
                         re.S | re.M)
        assert dump, (r.stdout[-3000:], r.stderr[-3000:])
        facts = {}
        for key, value in re.findall(r'^\t\t+([A-Z][\w ]+): (.*?)(?: \(.*)?$', dump[1], re.M):
            facts.setdefault(key, set()).add(value)
        return facts
