"""The texts of api_text.py as comments for ocamldoc."""
import re
import textwrap

from api import CALLS
from api_text import TEXTS

SYMBOLS = {c.symbol: ('NBDD.' if c.own else 'NBD.') + c.name for c in CALLS
           if c.name not in ('get_error', 'get_errno', 'uri_free')}


def reference(match):
    name = SYMBOLS.get(match.group(1))
    return '{!' + name + '}' if name else f'[{match.group(1)}]'


def markup(text):
    """TEXT with what ocamldoc reads as markup quoted, and references to other calls."""
    text = re.sub(r'([{}\[\]@\\])', r'\\\1', ' '.join(text.split()))
    text = re.sub(r'\b(nbdd?_\w+)\(3\)', reference, text)
    return re.sub(r'\b((?:LIB)?NBD_[A-Z0-9_]+[A-Z0-9])\b', r'[\1]', text)


def comment(call, indent=''):
    title, text, protocol = TEXTS[call.name]
    parts = [markup(title[0].upper() + title[1:] + '.')]
    parts += [markup(p) for p in re.split(r'\n\s*\n', text.strip()) if p.strip()]
    if protocol:
        parts.append(markup(f'Section \u201c{protocol}\u201d of the NBD protocol document.'))
    if not call.own:
        parts.append(f'Since libnbd {call.node}; see {call.symbol}(3).')
    lines = []
    for part in parts:
        lines += textwrap.wrap(part, 84, break_long_words=False, break_on_hyphens=False) + ['']
    return f'{indent}(** ' + '\n    '.join(lines[:-1]).replace('\n    \n', '\n\n') + ' *)\n'
