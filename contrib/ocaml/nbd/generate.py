#!/usr/bin/python3
"""The OCaml interface of the library from its table:  generate.py DIRECTORY-OF-API.PY

Writes NBD.mli, NBD.ml (the calls of libnbd.h), NBDD.mli, NBDD.ml (those of nbdd.h) and stubs.c
into the current directory.  A call X has the stub nbdml_X, and in OCaml the arguments
[?completion] [?flags] handle, the others in their order, callbacks last.
"""
import re
import sys

if __name__ == '__main__':
    sys.path.insert(0, sys.argv[1])
from api import CALLS, CONSTANTS, ENUMS, FLAGS     # noqa: E402
from gen import arguments                          # noqa: E402
from ocamldoc import comment                       # noqa: E402

# Written by hand in NBD.ml below, or of no use in OCaml.
BY_HAND = {'create', 'close', 'get_error', 'get_errno', 'uri_parse', 'uri_free'}

# An argument that is another one's length, and says nothing that OCaml does not know.
LENGTHS = {'count': ('in', 'out'), 'addrlen': ('sockaddr',), 'n': ('addrs',), 'iovcnt': ('iov',)}

CALLBACKS = {
    'chunk': 'bytes -> int64 -> int -> int ref -> int',
    'completion': 'int ref -> int',
    'debug': 'string -> string -> int',
    'extent': 'string -> int64 -> int64 array -> int ref -> int',
    'extent64': 'string -> int64 -> NBD.extent array -> int ref -> int',
    'list': 'string -> string -> int',
    'context': 'string -> int',
}

# kind: OCaml's type, the check that may raise, the C declaration, what is passed, what frees
# it.  V is the OCaml value, N the name, H the handle.
KINDS = {
    'bool': ('bool', '', '', 'Bool_val(V)', ''),
    'int': ('int', 'int N = nbdml_int(V, "N");', '', 'N', ''),
    'fd': ('Unix.file_descr', '', '', 'Int_val(V)', ''),
    'u32': ('int64', 'uint32_t N = nbdml_u32(V, "N");', '', 'N', ''),
    'u64': ('int64', '', 'uint64_t N = (uint64_t)Int64_val(V);', 'N', ''),
    'cookie': ('int64', '', 'uint64_t N = (uint64_t)Int64_val(V);', 'N', ''),
    'size': ('int', '', '', '(size_t)Long_val(V)', ''),
    'uptr': ('int', '', '', '(uintptr_t)Long_val(V)', ''),
    'str': ('string', 'nbdml_check_string(V, "N");',
            'char *N = nbdml_need(H, nbdml_string(V));', 'N', 'free(N);'),
    'strv': ('string list', 'nbdml_check_strings(V, "N");',
             'char **N = nbdml_need(H, nbdml_strings(V));', 'N', 'nbdml_strings_free(N);'),
    'in': ('bytes', '', 'void *N = nbdml_need(H, nbdml_bytes(V));\n'
           '\tsize_t N_size = caml_string_length(V);', 'N, N_size', 'free(N);'),
    'out': ('bytes', '', 'void *N = nbdml_need(H, nbdml_bytes(V));\n'
            '\tsize_t N_size = caml_string_length(V);', 'N, N_size',
            'if (r != -1)\n\t\tmemcpy(Bytes_val(V), N, N_size);\n\tfree(N);'),
    'buffer': ('NBD.Buffer.t', '', 'void *N = Caml_ba_data_val(V);\n'
               '\tsize_t N_size = (size_t)Caml_ba_array_val(V)->dim[0];', 'N, N_size', ''),
    'sockaddr': ('Unix.sockaddr', 'socklen_t N_len;\n'
                 '\tstruct sockaddr_storage N = nbdml_sockaddr(V, &N_len);', '',
                 '(const struct sockaddr *)&N, N_len', ''),
    'addrs': ('Unix.sockaddr list', 'nbdml_check_addresses(V);', 'size_t N_count;\n'
              '\tstruct nbdd_address *N = nbdml_need(H, nbdml_addresses(V, &N_count));',
              'N, N_count', 'free(N);'),
    'iov': ('slice list', 'nbdml_check_slices(V);', 'size_t N_count;\n'
            '\tstruct iovec *N = nbdml_need(H, nbdml_slices(V, &N_count));', 'N, N_count',
            'free(N);'),
}

# What a C `int` stands for, by the call's name; the first that fits.
INTS = [
    (r'get_tls$', 'TLS.t'),
    (r'(aio_get_fd|take_socket)$', 'Unix.file_descr'),
    (r'(aio_)?opt_(list|set)_meta_context|opt_list$|poll|aio_in_flight$', 'int'),
    (r'(is|can|supports|get|aio_is)_|aio_command_completed$', 'bool'),
    (r'opt_(starttls|structured_reply|extended_headers)$', 'bool'),
    (r'', 'unit'),
]
OTHERS = {
    'void': 'unit', 'char *': 'string', 'const char *': 'string', 'int64_t': 'int64',
    'uint64_t': 'int64', 'ssize_t': 'int', 'uintptr_t': 'int', 'unsigned': 'int',
}
# OCaml's type: the C expression for the returned r.
RESULTS = {
    'unit': 'Val_unit', 'int': 'Val_long(r)', 'bool': 'Val_bool(r)',
    'Unix.file_descr': 'Val_int(r)', 'TLS.t': 'Val_int(r)', 'flags': 'Val_long(r)',
    'int64': 'caml_copy_int64((int64_t)r)', 'cookie': 'caml_copy_int64(r)',
    'string': 'caml_copy_string(r)',
}
TOP = 'Made by contrib/ocaml/nbd/generate.py from lib/api.py.'


def bindable(call):
    """Whether the generator makes this call.  Of nbdd.h, what needs a C structure of its own
    or has no handle is for C programs, such as the daemon."""
    if call.name in BY_HAND:
        return False
    known = all(a.callback or a.kind in KINDS or a.name in LENGTHS
                or a.kind.startswith(('enum', 'flags', 'cmdflags')) for a in arguments(call))
    return not call.own or (known and not call.has('nohandle')
                            and call.returns in ('int', *OTHERS))


class Binding:
    """One call as OCaml sees it."""

    def __init__(self, call):
        self.call = call
        args = arguments(call)
        kinds = {a.kind for a in args}
        self.args = [a for a in args if not kinds & set(LENGTHS.get(a.name, ()))]
        self.completion = any(a.callback == 'completion' for a in args)
        self.flags = next((a for a in args if a.kind in ('cmdflags', 'flags.shutdown')), None)
        # What stands after the handle, in OCaml's order.
        plain = [a for a in self.args if not a.callback and a is not self.flags]
        self.rest = plain + [a for a in self.args
                             if a.callback and a.callback != 'completion']

    @property
    def module(self):
        return 'NBDD' if self.call.own else 'NBD'

    def kind(self, a):
        return 'buffer' if a.kind in ('in', 'out') and self.completion else a.kind

    def type_of(self, a):
        if a.callback:
            return f'({CALLBACKS[a.callback]})'
        base, _, table = a.kind.partition('.')
        if base == 'enum':
            return f'{table.upper()}.t'
        if base == 'flags':
            return f'{table.upper()}.t list'
        return KINDS[self.kind(a)][0]

    def flags_module(self):
        return ('' if not self.call.own else 'NBD.') + (
            'CMD_FLAG' if self.flags.kind == 'cmdflags' else 'SHUTDOWN')

    def result(self):
        call = self.call
        if call.returns == 'int':
            return next(t for pattern, t in INTS if re.match(pattern, call.name))
        if call.returns == 'uint32_t':
            return next(f'{a.kind.partition(".")[2].upper()}.t list' for c in CALLS
                        for a in arguments(c) if c.name == call.name.replace('get_', 'set_'))
        if self.completion and call.returns == 'int64_t':
            return 'cookie'
        return 'int' if call.name == 'get_transmission_flags' else OTHERS[call.returns]

    def type(self):
        parts = []
        if self.completion:
            parts.append(f'?completion:({CALLBACKS["completion"]})')
        if self.flags:
            parts.append(f'?flags:{self.flags_module()}.t list')
        parts.append('t')
        parts += [self.type_of(a) for a in self.rest]
        text = ' -> '.join(parts + [self.result()])
        return text if self.call.own else text.replace('NBD.', '')

    # What the stub gets: the same, with flags and enumerations as int.

    def raw_parameters(self):
        """(name, OCaml's type) of each parameter of the stub."""
        out = [('h', 't')]
        for a in self.rest:
            out.append((a.name, 'int' if a.kind.startswith(('enum', 'flags'))
                        else self.type_of(a)))
        if self.completion:
            out.append(('completion', f'({CALLBACKS["completion"]}) option'))
        if self.flags:
            out.append(('flags', 'int'))
        return out

    def external(self):
        parameters = self.raw_parameters()
        result = self.result()
        if result == 'TLS.t' or result.endswith(' list'):
            result = 'int'
        types = ' -> '.join([t for _, t in parameters] + [result])
        stub = f'"nbdml_{self.call.name}"'
        if len(parameters) > 5:
            stub = f'"nbdml_{self.call.name}_byte" {stub}'
        text = f'{self.call.name} : {types} = {stub}'
        return text if self.call.own else text.replace('NBD.', '')

    def plain(self):
        """Whether the stub is the function."""
        return not (self.completion or self.flags or self.result().endswith((' list', 'TLS.t'))
                    or any(a.kind.startswith(('enum', 'flags')) for a in self.rest))

    def wrapper(self):
        formal, actual = [], ['h']
        if self.completion:
            formal.append('?completion')
        if self.flags:
            formal.append('?(flags = [])')
        formal.append('h')
        for i, a in enumerate(self.rest):
            formal.append(f'a{i}')
            base, _, table = a.kind.partition('.')
            actual.append(f'({table.upper()}.to_int a{i})' if base == 'enum' else
                          f'(bits {table.upper()}.bit a{i})' if base == 'flags' else f'a{i}')
        if self.completion:
            actual.append('completion')
        if self.flags:
            actual.append(f'(bits {self.flags_module()}.bit flags)' if not self.call.own
                          else '(NBD.command_flags flags)')
        expression = f'Raw.{self.call.name} {" ".join(actual)}'
        result = self.result()
        if result == 'TLS.t':
            expression = f'TLS.of_int ({expression})'
        if result.endswith(' list'):
            expression = f'{result[:-7]}.of_bits ({expression})'
        return f'let {self.call.name} {" ".join(formal)} =\n  {expression}\n'

    # C

    def stub(self):
        call, name = self.call, self.call.name
        parameters = [n for n, _ in self.raw_parameters()]
        values = [f'{n}_v' for n in parameters]
        lock = not call.has('nolock')
        checks, allocations, frees = [], [], []
        passed = {}

        def fill(text, a):
            return re.sub(r'\b[VNH]\b|\bN(?=_)', lambda m: {
                'V': f'{a.name}_v', 'N': a.name, 'H': 'h_v'}[m.group(0)], text)

        for a in self.args:
            if a.callback:
                field = f'{a.callback}_data'
                value = 'completion_v' if a.callback == 'completion' else f'{a.name}_v'
                kept = 'Val_unit'
                if a.callback == 'completion':
                    value = 'Is_block(completion_v) ? Field(completion_v, 0) : Val_unit'
                    kept = next((f'{b.name}_v' for b in self.rest
                                 if self.kind(b) in ('buffer', 'iov')), 'Val_unit')
                allocations.append(f'void *{field} = nbdml_need(h_v, '
                                   f'nbdml_callback({value}, {kept}));')
                passed[a] = (f'({a.ctype.strip()}){{ nbdml_call_{a.callback}, {field}, '
                             'nbdml_callback_free }')
            elif a is self.flags or a.kind.startswith('flags'):
                passed[a] = f'(uint32_t)Long_val({a.name}_v)'
            elif a.kind.startswith('enum'):
                checks.append(f'int {a.name} = nbdml_int({a.name}_v, "{a.name}");')
                passed[a] = a.name
            else:
                _, check, allocation, expression, free = KINDS[self.kind(a)]
                checks.append(fill(check, a))
                allocations.append(fill(allocation, a))
                # Only what the stub itself reads may be an OCaml value while others run.
                expression = fill(expression, a)
                if '_v' in expression:
                    plain = f'{a.ctype}{a.name} = {expression};'
                    allocations.append(plain)
                    expression = a.name
                passed[a] = expression
                frees.append(fill(free, a))
        for a in self.args:
            if a is self.flags or a.kind.startswith('flags'):
                allocations.append(f'uint32_t {a.name} = {passed[a]};')
                passed[a] = a.name
        arguments_c = ', '.join(['h'] + [passed[a] for a in self.args])
        body = ''.join(f'\t{line}\n' for line in checks if line)
        # Waiting calls run signal handlers first; the values above are C's already.
        pending = '\tcaml_process_pending_actions();\n' if lock else ''
        body = pending + body
        module = self.module
        body += f'\tstruct nbd_handle *h = nbdml_enter(h_v, "{module}.{name}");\n'
        body += ''.join(f'\t{line}\n' for line in allocations if line)
        returns = call.returns if call.returns.endswith('*') else call.returns + ' '
        use = f'{call.symbol}({arguments_c})'
        body += f'\t{returns}r;\n\n'
        body += f'\tWITHOUT_RUNTIME(r = {use});\n' if lock or self.completion else f'\tr = {use};\n'
        body += ''.join(f'\t{line}\n' for line in frees if line)
        failing = None
        if not call.has('noerror'):
            failing = '!r' if call.returns.endswith('*') else 'r == -1'
            if name == 'get_option_reply':
                failing = None          # -1 is a value of it
        if failing:
            body += f'\tif ({failing})\n\t\tresult = nbdml_error();\n'
            body += f'\telse\n\t\tresult = {self.value()};\n'
        else:
            body += f'\tresult = {self.value()};\n'
        if call.returns == 'char *':
            body += '\tfree(r);\n'
        body += '\tnbdml_leave(h_v);\n'
        if failing:
            body += f'\tif ({failing})\n\t\tnbdml_raise(result);\n'
        first = ', '.join(values[:5])
        roots = f'\tCAMLparam{min(5, len(values))}({first});\n'
        if len(values) > 5:
            roots += f'\tCAMLxparam{len(values) - 5}({", ".join(values[5:])});\n'
        formal = ', '.join(f'value {v}' for v in values)
        out = (f'value nbdml_{name}({formal})\n{{\n{roots}\tCAMLlocal1(result);\n{body}'
               '\tCAMLreturn(result);\n}\n\n')
        if len(values) > 5:
            cells = ', '.join(f'v[{i}]' for i in range(len(values)))
            out += (f'value nbdml_{name}_byte(value *v, int n)\n{{\n'
                    f'\treturn nbdml_{name}({cells});\n}}\n\n')
        return out

    def value(self):
        result = self.result()
        if result.endswith(' list'):
            result = 'flags'
        return RESULTS[result]


def constructors(table):
    return ' | '.join(w for w, _ in table)


def enum_mli(name, table):
    return (f'module {name.upper()} : sig\n  type t = {constructors(table)} | UNKNOWN of int\n'
            '  (** [UNKNOWN] is any other value. *)\nend\n\n')


def flags_mli(name, table):
    return (f'module {name.upper()} : sig\n  type t = {constructors(table)} | UNKNOWN of int\n'
            '  (** [UNKNOWN] is the number of any other bit, from 0. *)\n\n'
            '  val mask : t list\n  (** All that this release knows. *)\nend\n\n')


# Those that a call returns.
RETURNED = {'tls', 'handshake_flag', 'strict'}


def enum_ml(name, table):
    to = ' '.join(f'| {w} -> {v}' for w, v in table)
    of = ' '.join(f'| {v} -> {w}' for w, v in table)
    return (f'module {name.upper()} = struct\n  type t = {constructors(table)} | UNKNOWN of int\n'
            f'  let to_int = function {to} | UNKNOWN n -> n\n'
            + (f'  let of_int = function {of} | n -> UNKNOWN n\n' if name in RETURNED else '')
            + 'end\n\n')


def flags_ml(name, table):
    rows = [(w, v.bit_length() - 1) for w, v in table]
    to = ' '.join(f'| {w} -> {b}' for w, b in rows)
    of = ' '.join(f'| {b} -> {w}' for w, b in rows)
    return (f'module {name.upper()} = struct\n  type t = {constructors(table)} | UNKNOWN of int\n'
            f'  let mask = [{"; ".join(w for w, _ in table)}]\n'
            f'  let bit = function {to} | UNKNOWN n -> n\n'
            + (f'  let of_bits = flags_of_bits (function {of} | n -> UNKNOWN n)\n'
               if name in RETURNED else '') + 'end\n\n')


def constants(form):
    out = ''
    for word, value in CONSTANTS:
        string = isinstance(value, str)
        out += form.format(name=word.lower(), type='string' if string else 'int32',
                           value=value if string else f'{value}l')
    return out


def table_modules(enum, flags):
    return ''.join(enum(n, t) for n, t in ENUMS.items()) + ''.join(
        flags(n, t) for n, t in FLAGS.items())


NBD_MLI = '''(* {top} *)

(** The interface of libnbd in OCaml.

    A handle {{!t}} is a connection to one export of an NBD server.  Each function is the C
    function of the same name, whose manual page tells all about it; see libnbd(3).  The handle
    stands first, but for the optional arguments; callbacks stand last.

    {{2 Callbacks}}
    They run within a call on the handle, with it locked: they must not use it, but for
    {{!close}} and what takes no lock, such as {{!aio_in_flight}}.  An exception in a callback is
    printed on standard error, and the callback fails: [-1].  Where a callback has an
    [int ref], that is the C errno to fail with, see {{!errno_of_unix_error}}.

    {{2 Threads and the collector}}
    OCaml's runtime lock is released while the library works.  Buffers and callbacks of a
    request stay alive until it is over.  A callback that refers to its own handle keeps the
    handle alive as long. *)

exception Error of string * Unix.error option
(** A call failed: why, and the errno where it is known. *)

exception Closed of string
(** The handle of this call, such as ["NBD.pread"], was closed before. *)

type cookie = int64
(** A request, see {{!aio_command_completed}}. *)

type extent = int64 * int64
(** Length in bytes, and flags of a metadata context. *)

{modules}{constants}
(** Memory for requests that are in flight while OCaml goes on. *)
module Buffer : sig
  type t

  val alloc : int -> t
  (** Of that many bytes, not initialized. *)

  val to_bytes : t -> bytes
  (** A copy of what is in it. *)

  val of_bytes : bytes -> t
  (** One with a copy of them. *)

  val size : t -> int
  (** In bytes. *)
end

val errno_of_unix_error : Unix.error -> int
(** The errno of C, for the [int ref] of a callback. *)

type t
(** A handle. *)

val create : unit -> t
{create}
val close : t -> unit
(** Close a handle.  It is closed by the collector, too, once nothing refers to it.  While
    another call on it is under way, in another thread or because this is a callback, the
    handle is closed when that call is over; every later call raises {{!Closed}}. *)

val with_handle : (t -> 'a) -> 'a
(** [with_handle f] is [f h] for a new handle [h], which is closed when [f] returns or
    raises. *)

{calls}(**/**)

external unix_error_of_errno : int -> Unix.error = "nbdml_unix_error_of_errno"
val command_flags : CMD_FLAG.t list -> int
'''

NBD_ML = '''(* {top} *)

exception Error of string * Unix.error option
exception Closed of string

let () =
  Callback.register_exception "nbdd.NBD.Error" (Error ("", None));
  Callback.register_exception "nbdd.NBD.Closed" (Closed "");
  Printexc.register_printer (function
    | Error (text, _) -> Some (Printf.sprintf "NBD.Error(%S)" text)
    | Closed call -> Some (Printf.sprintf "NBD.Closed(%S)" call)
    | _ -> None)

type cookie = int64
type extent = int64 * int64

(* Flags as a sum of bits, and back. *)
let bits bit =
  List.fold_left
    (fun sum flag ->
      let n = bit flag in
      if n < 0 || n > 31 then invalid_arg "bitmask value out of range";
      sum lor (1 lsl n))
    0

let flags_of_bits of_bit sum =
  List.filter (fun n -> sum land (1 lsl n) <> 0) (List.init 32 Fun.id) |> List.map of_bit

{modules}let command_flags flags = bits CMD_FLAG.bit flags

{constants}
module Buffer = struct
  type t = (char, Bigarray.int8_unsigned_elt, Bigarray.c_layout) Bigarray.Array1.t

  let alloc n =
    if n < 0 then invalid_arg "NBD.Buffer.alloc";
    Bigarray.Array1.create Bigarray.char Bigarray.c_layout n

  external to_bytes : t -> bytes = "nbdml_buffer_to_bytes"
  external of_bytes : bytes -> t = "nbdml_buffer_of_bytes"
  let size = Bigarray.Array1.dim
end

external errno_of_unix_error : Unix.error -> int = "nbdml_errno_of_unix_error"
external unix_error_of_errno : int -> Unix.error = "nbdml_unix_error_of_errno"

type t

module Raw = struct
  external create : unit -> t = "nbdml_create"
{raw}end

external close : t -> unit = "nbdml_close"

let create () =
  let h = Raw.create () in
  Gc.finalise close h;
  h

let with_handle f =
  let h = create () in
  Fun.protect ~finally:(fun () -> close h) (fun () -> f h)

{calls}'''

NBDD_MLI = '''(* {top} *)

(** What nbdd's library has besides libnbd's calls; see nbdd.h. *)

type t = NBD.t
type cookie = NBD.cookie
type bigarray = (char, Bigarray.int8_unsigned_elt, Bigarray.c_layout) Bigarray.Array1.t

val buffer : bigarray -> NBD.Buffer.t
(** The same memory as a buffer. *)

val bigarray : NBD.Buffer.t -> bigarray
(** The same memory as a Bigarray. *)

type slice = {{ buffer : bigarray; off : int; len : int }}
(** [len] bytes of [buffer] from [off] on, as a [Cstruct.t] has them. *)

type transport = TCP | UNIX | VSOCK

type uri = {{
  transport : transport;
  tls : bool;  (** the scheme demands TLS *)
  export_name : string;
  host : string option;
  port : string option;
  socket_path : string option;
  username : string option;
  tls_certificates : string option;
  tls_psk_file : string option;
  tls_hostname : string option;
  tls_priority : string option;
  verify_peer : bool;
  vsock_cid : int64;
  vsock_port : int64;
}}

external uri_parse : string -> uri = "nbdml_uri_parse"
(** Take an NBD URI apart, without a handle and without connecting.  Raises {{!NBD.Error}}. *)

{calls}'''

NBDD_ML = '''(* {top} *)

type t = NBD.t
type cookie = NBD.cookie
type bigarray = (char, Bigarray.int8_unsigned_elt, Bigarray.c_layout) Bigarray.Array1.t

(* What NBD.Buffer.t is. *)
external buffer : bigarray -> NBD.Buffer.t = "%identity"
external bigarray : NBD.Buffer.t -> bigarray = "%identity"

type slice = {{ buffer : bigarray; off : int; len : int }}
type transport = TCP | UNIX | VSOCK

type uri = {{
  transport : transport;
  tls : bool;
  export_name : string;
  host : string option;
  port : string option;
  socket_path : string option;
  username : string option;
  tls_certificates : string option;
  tls_psk_file : string option;
  tls_hostname : string option;
  tls_priority : string option;
  verify_peer : bool;
  vsock_cid : int64;
  vsock_port : int64;
}}

external uri_parse : string -> uri = "nbdml_uri_parse"

module Raw = struct
{raw}end

{calls}'''

STUBS = '''/* {top} */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

'''


def write(name, text):
    with open(name, 'w', encoding='utf-8') as f:
        f.write(re.sub(r'[ \t]+\n', '\n', text))


def main():
    bindings = [Binding(c) for c in CALLS if bindable(c)]
    modules = {}
    for module in ('NBD', 'NBDD'):
        mine = [b for b in bindings if b.module == module]
        modules[module] = {
            'top': TOP,
            'raw': ''.join(f'  external {b.external()}\n' for b in mine if not b.plain()),
            'impl': ''.join(f'external {b.external()}\n' if b.plain() else b.wrapper()
                            for b in mine),
            'decl': ''.join(f'val {b.call.name} : {b.type()}\n{comment(b.call)}\n'
                            for b in mine),
        }
    nbd, own = modules['NBD'], modules['NBDD']
    create = comment(next(c for c in CALLS if c.name == 'create'))
    write('NBD.mli', NBD_MLI.format(
        top=TOP, modules=table_modules(enum_mli, flags_mli), create=create,
        constants=constants('val {name} : {type}\n'), calls=nbd['decl']))
    write('NBD.ml', NBD_ML.format(
        top=TOP, modules=table_modules(enum_ml, flags_ml),
        constants=constants('let {name} = {value}\n'), raw=nbd['raw'], calls=nbd['impl']))
    write('NBDD.mli', NBDD_MLI.format(top=TOP, calls=own['decl']))
    write('NBDD.ml', NBDD_ML.format(top=TOP, raw=own['raw'], calls=own['impl']))
    write('stubs.c', STUBS.format(top=TOP) + ''.join(b.stub() for b in bindings))


if __name__ == '__main__':
    main()
