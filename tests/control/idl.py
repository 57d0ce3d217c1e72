"""Varlink's interface definition language: enough to check values against an interface."""
import re

TOKEN = re.compile(r'#[^\n]*|->|[\[\](),:?]|[A-Za-z][\w.-]*')
SIMPLE = {'string': str, 'int': int, 'float': (int, float), 'bool': bool, 'object': object}


class Interface:
    """What TEXT defines: `types`, `errors` {name: fields}, `methods` {name: (in, out)};
    fields are {name: type}."""

    def __init__(self, text):
        left = TOKEN.sub('', text).strip()
        assert not left, f'odd text: {left}'
        self.tokens = [t for t in TOKEN.findall(text) if t[0] != '#']
        self.types, self.errors, self.methods = {}, {}, {}
        self.expect('interface')
        self.name = self.take()
        while self.tokens:
            kind, name = self.take(), self.take()
            assert re.fullmatch('[A-Z][A-Za-z0-9]*', name), name
            if kind == 'method':
                arguments = self.fields()
                self.expect('->')
                self.methods[name] = (arguments, self.fields())
            else:
                {'type': self.types, 'error': self.errors}[kind][name] = self.fields()
        for fields in [*self.types.values(), *self.errors.values(),
                       *(f for m in self.methods.values() for f in m)]:
            for t in fields.values():
                self.resolve(t)

    def take(self):
        return self.tokens.pop(0)

    def expect(self, token):
        got = self.take()
        assert got == token, f'expected {token}, got {got}'

    def fields(self):
        self.expect('(')
        found = {}
        while self.tokens[0] != ')':
            name = self.take()
            assert re.fullmatch('[a-z](_?[A-Za-z0-9])*', name), name
            self.expect(':')
            found[name] = self.type()
            if self.tokens[0] == ',':
                self.take()
        self.take()
        return found

    def type(self):
        token = self.take()
        if token == '?':
            return ('maybe', self.type())
        if token == '[':
            if self.tokens[0] == 'string':
                self.take()
                self.expect(']')
                return ('map', self.type())
            self.expect(']')
            return ('array', self.type())
        return token

    def resolve(self, t):
        if isinstance(t, tuple):
            self.resolve(t[1])
        else:
            assert t in SIMPLE or t in self.types, f'unknown type {t}'

    def check(self, value, t, where=''):
        """VALUE is of type T (a name, a parsed type, or fields), exactly."""
        if isinstance(t, dict):
            assert isinstance(value, dict), f'{where}: {value!r}'
            extra = set(value) - set(t)
            assert not extra, f'{where}: not in the interface: {extra}'
            for name, member in t.items():
                self.check(value.get(name), member, f'{where}.{name}')
        elif isinstance(t, tuple):
            kind, inner = t
            if kind == 'maybe':
                return value is None or self.check(value, inner, where)
            for item in (value.values() if kind == 'map' else value):
                self.check(item, inner, f'{where}[]')
        elif t in SIMPLE:
            assert isinstance(value, SIMPLE[t]) and (t == 'bool') == isinstance(value, bool), \
                f'{where}: {value!r} is no {t}'
        else:
            self.check(value, self.types[t], where)
        return True
