"""Certificates and pre-shared keys for tests, made by GnuTLS's tools."""
import shutil
import subprocess

# The clock of a guest on a busy machine falls behind that of its host, where they are made.
LONG_AGO = '2020-01-01 00:00:00'


class Authority:
    """A CA in a directory; certificates that it signs."""

    def __init__(self, path, name='Test CA'):
        self.path = path
        path.mkdir()
        self.key(path / 'ca-key.pem')
        self.tool('--generate-self-signed', '--load-privkey', path / 'ca-key.pem',
                  '--outfile', path / 'ca-cert.pem',
                  info=[f'cn = {name}', 'ca', 'cert_signing_key', 'crl_signing_key',
                        f'activation_date = {LONG_AGO}', 'expiration_days = 9000'])

    def tool(self, *arguments, info=()):
        template = self.path / 'info'
        template.write_text(''.join(f'{line}\n' for line in info))
        subprocess.run(['certtool', '--template', template, *arguments], check=True,
                       capture_output=True)

    def key(self, file):
        self.tool('--generate-privkey', '--key-type', 'ecdsa', '--curve', 'secp256r1',
                  '--outfile', file)

    def signed(self, *arguments, info=()):
        self.tool('--load-ca-certificate', self.path / 'ca-cert.pem',
                  '--load-ca-privkey', self.path / 'ca-key.pem', *arguments, info=info)

    def issue(self, directory, kind, names=('dns_name = localhost', 'ip_address = 127.0.0.1'),
              days=100, begin=LONG_AGO, end=None):
        """DAYS from now on, or until END."""
        directory.mkdir(exist_ok=True)
        shutil.copy(self.path / 'ca-cert.pem', directory)
        self.key(directory / f'{kind}-key.pem')
        self.signed('--generate-certificate', '--load-privkey', directory / f'{kind}-key.pem',
                    '--outfile', directory / f'{kind}-cert.pem',
                    info=['cn = somebody', f'tls_www_{kind}', 'signing_key',
                          'encryption_key', *names, f'activation_date = {begin}',
                          f'expiration_date = {end}' if end else f'expiration_days = {days}'])
        return directory

    def revoke(self, directory, kind):
        """DIRECTORY's certificate is in the list that this returns."""
        self.signed('--generate-crl', '--load-certificate', directory / f'{kind}-cert.pem',
                    '--outfile', self.path / 'ca-crl.pem',
                    info=[f'crl_this_update_date = {LONG_AGO}', 'crl_next_update = 100',
                          f'crl_revocation_date = {LONG_AGO}', 'crl_number = 1'])
        return self.path / 'ca-crl.pem'


def make_certificates(at):
    """Directories of certificates below AT, by name."""
    ca, other = Authority(at / 'ca'), Authority(at / 'other', 'Other CA')
    made = {
        'server': ca.issue(at / 'server', 'server'),
        'client': ca.issue(at / 'client', 'client'),
        'expired': ca.issue(at / 'expired', 'server', end='2022-01-01 00:00:00'),
        'early': ca.issue(at / 'early', 'server', begin='2090-01-01 00:00:00',
                          end='2091-01-01 00:00:00'),
        'named': ca.issue(at / 'named', 'server', names=('dns_name = disk.example',
                                                         'ip_address = 192.0.2.7')),
        'stranger': other.issue(at / 'stranger', 'client'),
        'ca-only': at / 'ca-only', 'crl': at / 'crl',
    }
    for name in ('ca-only', 'crl'):
        made[name].mkdir()
        shutil.copy(ca.path / 'ca-cert.pem', made[name])
    shutil.copy(ca.revoke(made['server'], 'server'), made['crl'])
    return made


def make_keys(at):
    """Files of pre-shared keys below AT: (alice and bob), (alice with another key)."""
    for name, users in (('keys', ('alice', 'bob')), ('bad', ('alice',))):
        for user in users:
            subprocess.run(['psktool', '-u', user, '-p', at / f'{name}.psk'], check=True,
                           capture_output=True)
    return at / 'keys.psk', at / 'bad.psk'
