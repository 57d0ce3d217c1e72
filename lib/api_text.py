"""What each public call does, for its manual page: (one line, paragraphs, section of the
protocol document or '').  Arguments, states, returned values and the errors that follow
from the table in api.py are written by gen.py."""

_AIO = '''The request is queued and the call returns its cookie at once.  A request of an idle
handle is sent at once; others leave together at the next nbd_poll(3),
nbd_aio_notify_read(3) or nbd_aio_notify_write(3).  For a program that asks
nbd_aio_get_direction(3) in each round of its loop, and issues several requests in one, the first
waits for the others, too, and the direction tells so.'''
_DONE = '''The completion callback is called once the reply is complete, with *error 0 or an
errno; the buffers must live until then.  It returns 1 to have the command retired, 0 to keep it
for nbd_aio_command_completed(3), or -1 to keep it with the errno that it wrote to *error: that
may replace an error, not take it back.  Callbacks are freed when the command is retired.'''
_SYNC = '''The call waits for the server's reply.'''
_OPT = '''Possible in opt mode only, see nbd_set_opt_mode(3), and for servers that speak fixed
newstyle.'''
_OPT_AIO = '''The option is sent and the call returns; nbd_aio_is_connecting(3) is true until
the server's last reply is in.  The completion callback is then called with *error 0 or an
errno; what it returns does not matter.  Then the callbacks are freed.'''
_NEGOTIATED = '''Known once the export's flags are, that is after connecting, or after
nbd_opt_info(3).'''
_BS = '''The callback is called once for each metadata context with consecutive extents, the
first of which begins at the offset.  *error is the command's error so far; when the callback
returns -1, the command fails, with *error or EPROTO, unless it has failed already.  The server may describe less than was asked for, and the
last extent may go beyond it.  What flags mean depends on the context; for base:allocation they
are LIBNBD_STATE_HOLE and LIBNBD_STATE_ZERO.  Contexts must have been asked for by
nbd_add_meta_context(3) before connecting.'''
_BS32 = '''Each extent is a pair of 32-bit numbers, length and flags, and nr_entries is twice
their number.  An extent that is longer than that is cut; a context whose flags have more than
32 bits is EOVERFLOW.'''
_BS64 = '''Each extent is an nbd_extent with a length and flags of 64 bits, and nr_entries is
their number.'''
_FILTER = '''Only the contexts of the list are reported.  The server must have
NBD_FLAG_BLOCK_STATUS_PAYLOAD, see nbd_can_block_status_payload(3), and each context must have
been negotiated.'''
_CONNECT = '''The call returns when the handshake is over, or in opt mode when options can be
negotiated.'''
_CONNECT_AIO = '''The call returns at once; nbd_aio_is_connecting(3) is true until the handshake
is over.  The descriptor to poll may change meanwhile: ask nbd_aio_get_fd(3) each time.'''
_TCP = '''All addresses that the name resolves to are tried, IPv6 and IPv4 in turn, the next one
250 ms after the one before or as soon as it failed; the first that answers wins (RFC 8305).
When all fail the handle is as it was before and may be used to connect again.'''
_ACTIVATION = '''The command is run with a listening Unix socket as descriptor 3, as
sd_listen_fds(3) describes, and the handle connects to it.  nbd_close(3) ends it with SIGTERM,
waits for it and removes the socket.'''
_COMMAND = '''argv[0] is searched for in PATH.  The command's standard input and output are the
connection.  nbd_close(3) closes it and waits for the command to end.'''

TEXTS = {
    # handles
    'create': ('make a handle', '''A handle stands for one connection to one export.  It is
closed by nbd_close(3).  Handles are named nbd1, nbd2 and so on in messages.  The environment
variable LIBNBD_DEBUG=1 sets its debug flag, see nbd_set_debug(3).''', ''),
    'close': ('close a handle', '''Closes the connection, frees callbacks and memory, and waits
for a subprocess that the handle started.  No NBD_CMD_DISC is sent: call nbd_shutdown(3) before
to tell the server.  A NULL handle is ignored.''', ''),
    'set_handle_name': ('name a handle', '''The name is used in debug messages.''', ''),
    'get_handle_name': ('tell the name of a handle', '''''', ''),
    'set_private_data': ('keep a number in the handle', '''The number is not looked at.  Returns
the one that was kept before, 0 at first.  May be called from a callback.''', ''),
    'get_private_data': ('tell the number kept in the handle', '''May be called from a
callback.''', ''),
    'get_package_name': ('tell the name of the library', '''''', ''),
    'get_version': ('tell the version of the library', '''MAJOR.MINOR.RELEASE of the libnbd
whose calls it has.''', ''),
    'get_version_extra': ('tell which build of the library this is', '''May be "".''', ''),
    'kill_subprocess': ('signal the server that the handle runs', '''Signal 0 stands for
SIGTERM.  ESRCH when the handle was not connected by nbd_connect_command(3) or
nbd_connect_systemd_socket_activation(3).''', ''),
    'get_subprocess_pid': ('tell the process id of the server that the handle runs', '''ESRCH
when there is none.''', ''),
    'get_handle_size': ('tell the size of the handle in bytes', '''Not counting what it points
to.''', ''),
    # errors
    'get_error': ('tell the last error in words', '''Of the calling thread, with the name of the
call that failed; NULL when none did.  Valid until the next failure in this thread.''', ''),
    'get_errno': ('tell the last error as an errno', '''Of the calling thread; 0 when no call
failed or its errno is not known.''', ''),
    # debugging
    'set_debug': ('log what the handle does', '''Calls and what the server says are logged to
standard error, or to the callback of nbd_set_debug_callback(3).''', ''),
    'get_debug': ('tell whether the handle logs', '''''', ''),
    'set_debug_callback': ('take the debug log', '''The callback gets the name of the current
call and one message without a newline, with the handle locked: it must not use the
handle.''', ''),
    'clear_debug_callback': ('send the debug log to standard error again', '''''', ''),
    'stats_bytes_sent': ('count bytes sent', '''''', ''),
    'stats_chunks_sent': ('count messages sent', '''Options and requests.''', ''),
    'stats_bytes_received': ('count bytes received', '''''', ''),
    'stats_chunks_received': ('count messages received', '''Simple replies and chunks.''', ''),
    # settings
    'set_export_name': ('choose the export', '''At most 4096 bytes; the default is "", the
server's default export.  In opt mode what was learned of another export is forgotten.''',
                        'NBD_OPT_GO'),
    'get_export_name': ('tell the chosen export', '''''', ''),
    'set_request_block_size': ('ask for block sizes', '''Default true.  A server that tells them
may expect them to be kept.''', 'Block size constraints'),
    'get_request_block_size': ('tell whether block sizes are asked for', '''''', ''),
    'set_full_info': ('ask for the export\'s canonical name and description', '''Default
false.''', 'NBD_OPT_INFO'),
    'get_full_info': ('tell whether name and description are asked for', '''''', ''),
    'set_request_structured_replies': ('ask for structured replies', '''Default true.  Metadata
contexts and partial reads need them.''', 'NBD_OPT_STRUCTURED_REPLY'),
    'get_request_structured_replies': ('tell whether structured replies are asked for', '', ''),
    'set_request_extended_headers': ('ask for extended headers', '''Default true; without
structured replies they are not asked for.  They let commands without payload be longer than
4 GiB.''', 'Extended headers'),
    'get_request_extended_headers': ('tell whether extended headers are asked for', '', ''),
    'set_handshake_flags': ('choose the handshake flags', '''Those that the server offers, too,
are sent.  Default LIBNBD_HANDSHAKE_FLAG_MASK; fewer are for testing servers.''',
                            'Handshake flags'),
    'get_handshake_flags': ('tell the handshake flags', '''Before connecting those that are
set, then those that the server offered, too; 0 for an oldstyle server.''', 'Handshake flags'),
    'set_pread_initialize': ('leave no stale memory in the buffer of a read that fails',
                             '''Default true: what the server did not send reads as
zeroes, also when the read failed before it was asked.''', ''),
    'get_pread_initialize': ('tell whether buffers are initialised', '', ''),
    'set_strict_mode': ('choose what is checked before a request is sent', '''By default all of
it: LIBNBD_STRICT_COMMANDS, that the server has the command; FLAGS, that the command has the
flags; BOUNDS, that it lies within the export; ZERO_SIZE, that it is not empty; ALIGN, that it
keeps the minimum block size; PAYLOAD, that it keeps the payload size.  AUTO_FLAG sets
LIBNBD_CMD_FLAG_PAYLOAD_LEN by itself.  Less is for testing servers.  Until it is set,
nbd_get_strict_mode(3) shows the first five, which programs of libnbd 1.14 take for all.''',
                        ''),
    'get_strict_mode': ('tell what is checked before a request is sent', '', ''),
    'set_opt_mode': ('stop connecting where options are negotiated', '''Default false.  When
true, connecting ends in the state that nbd_aio_is_negotiating(3) tells; nbd_opt_go(3) goes on
from there, nbd_opt_abort(3) ends it.''', 'Fixed newstyle negotiation'),
    'get_opt_mode': ('tell whether connecting stops for options', '', ''),
    # TLS
    'set_tls': ('choose TLS', '''LIBNBD_TLS_DISABLE, the default; LIBNBD_TLS_ALLOW, where the
server has it; LIBNBD_TLS_REQUIRE.''', 'TLS support'),
    'get_tls': ('tell whether TLS is wanted', '', ''),
    'get_tls_negotiated': ('tell whether the connection uses TLS', '', ''),
    'set_tls_certificates': ('choose the directory of certificates', '''It holds ca-cert.pem
and, where the server wants one, client-cert.pem and client-key.pem.  A key file that others
than its owner and group may read or write is refused.''', ''),
    'set_tls_verify_peer': ('check the server\'s certificate', '''Default true.''', ''),
    'get_tls_verify_peer': ('tell whether the server\'s certificate is checked', '', ''),
    'set_tls_username': ('choose the name for pre-shared keys', '', ''),
    'get_tls_username': ('tell the name for pre-shared keys', '''The login name unless one was
set.''', ''),
    'set_tls_psk_file': ('choose the file of pre-shared keys', '''Lines USER:KEY, the key in
hexadecimal digits.  A file that others than its owner and group may read or write is
refused.''', ''),
    'set_tls_hostname': ('choose the name that the server\'s certificate must bear', '''By
default the host that was connected to.''', ''),
    'get_tls_hostname': ('tell the name that the certificate must bear', '''"" when none was
set.''', ''),
    'set_tls_priority': ('choose versions and ciphers', '''A priority string of GnuTLS.''', ''),
    'get_tls_priority': ('tell versions and ciphers', '''"NORMAL" when none was set.''', ''),
    'supports_tls': ('tell whether this build has TLS', '', ''),
    'set_uri_allow_tls_priority': ('let URIs choose versions and ciphers', '''Default
false.''', ''),
    # metadata contexts
    'add_meta_context': ('ask for a metadata context', '''At most 4096 bytes, for example
LIBNBD_CONTEXT_BASE_ALLOCATION.  nbd_can_meta_context(3) tells afterwards whether the server
has it.''', 'Metadata querying'),
    'get_nr_meta_contexts': ('count the contexts asked for', '', ''),
    'get_meta_context': ('tell a context asked for', '''The first is 0.''', ''),
    'clear_meta_contexts': ('ask for no contexts any more', '', ''),
    'set_request_meta_context': ('negotiate contexts by itself', '''Default true.  When false,
connecting and nbd_opt_go(3) leave contexts alone and nbd_opt_set_meta_context(3) is for the
caller to call.''', ''),
    'get_request_meta_context': ('tell whether contexts are negotiated by itself', '', ''),
    'opt_list_meta_context': ('list the contexts that a server has', f'''The contexts asked for
are the queries; with none, all are listed.  {_OPT}  Returns their number.''',
                              'NBD_OPT_LIST_META_CONTEXT'),
    'opt_list_meta_context_queries': ('list the contexts that match queries', f'''{_OPT}  Returns
their number.''', 'NBD_OPT_LIST_META_CONTEXT'),
    'opt_set_meta_context': ('select the contexts asked for', f'''{_OPT}  Returns the number of
contexts that the server selected.''', 'NBD_OPT_SET_META_CONTEXT'),
    'opt_set_meta_context_queries': ('select contexts that match queries', f'''{_OPT}  Returns
the number of contexts that the server selected.''', 'NBD_OPT_SET_META_CONTEXT'),
    'aio_opt_list_meta_context': ('begin to list contexts', _OPT_AIO,
                                  'NBD_OPT_LIST_META_CONTEXT'),
    'aio_opt_list_meta_context_queries': ('begin to list contexts that match queries', _OPT_AIO,
                                          'NBD_OPT_LIST_META_CONTEXT'),
    'aio_opt_set_meta_context': ('begin to select contexts', _OPT_AIO,
                                 'NBD_OPT_SET_META_CONTEXT'),
    'aio_opt_set_meta_context_queries': ('begin to select contexts that match queries',
                                         _OPT_AIO, 'NBD_OPT_SET_META_CONTEXT'),
    # URI
    'set_uri_allow_transports': ('choose the transports that URIs may use', '''Default all.''',
                                 ''),
    'set_uri_allow_tls': ('choose whether URIs may use TLS', '''LIBNBD_TLS_DISABLE: only plain
ones; LIBNBD_TLS_REQUIRE: only those with TLS; LIBNBD_TLS_ALLOW, the default: both.''', ''),
    'set_uri_allow_local_file': ('let URIs name local files', '''Default false.  The parameters
tls-certificates and tls-psk-file need it.''', ''),
    'connect_uri': ('connect to what a URI says', f'''Schemes are nbd, nbds (with TLS), nbd+unix,
nbds+unix, nbd+vsock and nbds+vsock: nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH,
nbd+vsock://CID:PORT/EXPORT.  Host localhost and port 10809 are the defaults.  The query may
hold tls-certificates, tls-psk-file, tls-verify-peer, tls-hostname and tls-priority; a user
name before the host is that for TLS.  EPERM for what the handle forbids URIs, see
nbd_set_uri_allow_transports(3), nbd_set_uri_allow_tls(3), nbd_set_uri_allow_local_file(3).
{_CONNECT}''', 'TLS support'),
    'aio_connect_uri': ('begin to connect to what a URI says', f'''As nbd_connect_uri(3); a host
name may have to be resolved first, which waits.  {_CONNECT_AIO}''', ''),
    'get_uri': ('make a URI for the connection', '''EINVAL when the handle was connected in a way
that no URI tells.''', ''),
    'is_uri': ('tell whether a text looks like an NBD URI', '''Looks at its scheme only; it may
still be refused by nbd_connect_uri(3).''', ''),
    'supports_uri': ('tell whether URIs can be used', '''They need libxml2, which is loaded when
it is first used.''', ''),
    # connecting
    'connect_unix': ('connect to a Unix socket', _CONNECT, ''),
    'connect_vsock': ('connect to a vsock port', _CONNECT, ''),
    'connect_tcp': ('connect to a TCP port', f'{_TCP}  {_CONNECT}', ''),
    'connect_socket': ('use a connected stream socket', f'''The socket is the handle\'s from now
on, unless the call fails before anything was sent.  {_CONNECT}''', ''),
    'connect_command': ('run a server and connect to it', f'{_COMMAND}  {_CONNECT}', ''),
    'connect_systemd_socket_activation': ('run a server by socket activation and connect to it',
                                          f'{_ACTIVATION}  {_CONNECT}', ''),
    'aio_connect': ('begin to connect to a socket address', _CONNECT_AIO, ''),
    'aio_connect_unix': ('begin to connect to a Unix socket', _CONNECT_AIO, ''),
    'aio_connect_vsock': ('begin to connect to a vsock port', _CONNECT_AIO, ''),
    'aio_connect_tcp': ('begin to connect to a TCP port', f'''{_TCP}  Resolving the name may
wait; for the rest: {_CONNECT_AIO[0].lower()}{_CONNECT_AIO[1:]}''', ''),
    'aio_connect_socket': ('begin to use a connected stream socket', _CONNECT_AIO, ''),
    'aio_connect_command': ('run a server and begin to connect to it',
                            f'{_COMMAND}  {_CONNECT_AIO}', ''),
    'aio_connect_systemd_socket_activation': (
        'run a server by socket activation and begin to connect to it',
        f'{_ACTIVATION}  {_CONNECT_AIO}', ''),
    'supports_vsock': ('tell whether this build has vsock', '', ''),
    'set_socket_activation_name': ('name the socket for socket activation', '''It goes into
LISTEN_FDNAMES.  At most 32 characters, no control characters, no colon.''', ''),
    'get_socket_activation_name': ('tell the name of the socket for socket activation', '', ''),
    # options
    'opt_go': ('negotiate contexts and begin transmission', f'''{_OPT}  A server without
NBD_OPT_GO is asked by NBD_OPT_EXPORT_NAME, which ends the connection when it refuses.  After a
refusal of NBD_OPT_GO, ENOENT for an unknown export, another export may be chosen.''',
               'NBD_OPT_GO'),
    'opt_abort': ('end the handshake in order', f'''{_OPT}''', 'NBD_OPT_ABORT'),
    'opt_list': ('list the exports of a server', f'''The callback gets each name with its
description, which may be "".  {_OPT}  Returns the number of exports; at most 10,000 are
taken.  nbdd_get_option_reply(3) tells a server that does not know how from one whose policy
forbids it.''', 'NBD_OPT_LIST'),
    'opt_info': ('learn about the export without using it', f'''{_OPT}  Size, flags, block sizes
and texts can be asked for afterwards.''', 'NBD_OPT_INFO'),
    'opt_structured_reply': ('ask for structured replies', f'''{_OPT}  Returns 1 when the server
agreed, 0 when it refused.''', 'NBD_OPT_STRUCTURED_REPLY'),
    'opt_extended_headers': ('ask for extended headers', f'''{_OPT}  Returns 1 when the server
agreed, 0 when it refused.''', 'Extended headers'),
    'opt_starttls': ('ask for TLS', f'''{_OPT}  Returns 1 when the connection uses TLS now, 0
when the server refused.  EINVAL when it does already.''',
                     'NBD_OPT_STARTTLS'),
    'aio_opt_go': ('begin to begin transmission', _OPT_AIO, 'NBD_OPT_GO'),
    'aio_opt_abort': ('begin to end the handshake', '''The handle is closed when the server has
answered, see nbd_aio_is_closed(3).''', 'NBD_OPT_ABORT'),
    'aio_opt_list': ('begin to list exports', _OPT_AIO, 'NBD_OPT_LIST'),
    'aio_opt_info': ('begin to learn about the export', _OPT_AIO, 'NBD_OPT_INFO'),
    'aio_opt_structured_reply': ('begin to ask for structured replies', _OPT_AIO,
                                 'NBD_OPT_STRUCTURED_REPLY'),
    'aio_opt_extended_headers': ('begin to ask for extended headers', _OPT_AIO,
                                 'Extended headers'),
    'aio_opt_starttls': ('begin to ask for TLS', _OPT_AIO, 'NBD_OPT_STARTTLS'),
    # what is known
    'get_size': ('tell the size of the export in bytes', _NEGOTIATED, 'NBD_INFO_EXPORT'),
    'get_block_size': ('tell a block size of the export', '''LIBNBD_SIZE_MINIMUM, PREFERRED and
MAXIMUM are the server\'s, 0 when it told none.  LIBNBD_SIZE_PAYLOAD is the most that one read
or write may have: the server\'s maximum, but from 1 MiB to 64 MiB.''',
                       'Block size constraints'),
    'get_canonical_export_name': ('tell the server\'s name of the export', '''ENOTSUP when it
told none; it is asked by nbd_set_full_info(3).''', 'NBD_INFO_NAME'),
    'get_export_description': ('tell the server\'s description of the export', '''ENOTSUP when it
told none; it is asked by nbd_set_full_info(3).''', 'NBD_INFO_DESCRIPTION'),
    'get_protocol': ('tell the handshake\'s version', '''"oldstyle", "newstyle" or
"newstyle-fixed".''', 'Handshake'),
    'get_structured_replies_negotiated': ('tell whether replies are structured', '',
                                          'NBD_OPT_STRUCTURED_REPLY'),
    'get_extended_headers_negotiated': ('tell whether headers are extended', '',
                                        'Extended headers'),
    'is_read_only': ('tell whether the export is read-only', _NEGOTIATED, 'Transmission flags'),
    'is_rotational': ('tell whether the export is like a rotating disk', _NEGOTIATED,
                      'Transmission flags'),
    'can_flush': ('tell whether the server has flush', _NEGOTIATED, 'Transmission flags'),
    'can_fua': ('tell whether the server has the FUA flag', _NEGOTIATED, 'Transmission flags'),
    'can_trim': ('tell whether the server has trim', _NEGOTIATED, 'Transmission flags'),
    'can_zero': ('tell whether the server has write zeroes', _NEGOTIATED, 'Transmission flags'),
    'can_fast_zero': ('tell whether the server has the fast zero flag', _NEGOTIATED,
                      'Transmission flags'),
    'can_df': ('tell whether the server has the DF flag', _NEGOTIATED, 'Transmission flags'),
    'can_multi_conn': ('tell whether several connections see one cache', _NEGOTIATED,
                       'Transmission flags'),
    'can_cache': ('tell whether the server has cache', _NEGOTIATED, 'Transmission flags'),
    'can_meta_context': ('tell whether a context was negotiated', _NEGOTIATED,
                         'Metadata querying'),
    'can_block_status_payload': ('tell whether block status can be filtered', _NEGOTIATED,
                                 'Extended headers'),
    # requests
    'pread': ('read', _SYNC, 'NBD_CMD_READ'),
    'pread_structured': ('read, and hear of each part', f'''The callback is called for each part
of the reply, in the order in which they come: LIBNBD_READ_DATA with the data in the buffer,
LIBNBD_READ_HOLE for zeroes, LIBNBD_READ_ERROR for an error at an offset.  *error is the
command's error so far; when the callback returns -1, the command fails, with *error or EPROTO,
unless it has failed already.  LIBNBD_CMD_FLAG_DF asks for one part.  {_SYNC}''', 'NBD_CMD_READ'),
    'pwrite': ('write', f'''LIBNBD_CMD_FLAG_FUA: the reply comes when the data is on stable
storage.  {_SYNC}''', 'NBD_CMD_WRITE'),
    'flush': ('have all completed writes on stable storage', _SYNC, 'NBD_CMD_FLUSH'),
    'trim': ('tell the server that a range is not needed any more', f'''LIBNBD_CMD_FLAG_FUA as
for nbd_pwrite(3).  {_SYNC}''', 'NBD_CMD_TRIM'),
    'cache': ('have the server read a range ahead', _SYNC, 'NBD_CMD_CACHE'),
    'zero': ('write zeroes', f'''LIBNBD_CMD_FLAG_NO_HOLE: the range stays allocated;
LIBNBD_CMD_FLAG_FAST_ZERO: fail with ENOTSUP if it is no faster than writing;
LIBNBD_CMD_FLAG_FUA as for nbd_pwrite(3).  {_SYNC}''', 'NBD_CMD_WRITE_ZEROES'),
    'block_status': ('ask for the status of a range', f'''{_BS}  {_BS32}
LIBNBD_CMD_FLAG_REQ_ONE asks for one extent of each context.  {_SYNC}''',
                     'NBD_CMD_BLOCK_STATUS'),
    'block_status_64': ('ask for the status of a range, in 64 bits', f'''{_BS}  {_BS64}
LIBNBD_CMD_FLAG_REQ_ONE asks for one extent of each context.  {_SYNC}''',
                        'NBD_CMD_BLOCK_STATUS'),
    'block_status_filter': ('ask for the status of a range in some contexts', f'''{_BS}  {_BS64}
{_FILTER}  {_SYNC}''', 'Extended headers'),
    'shutdown': ('end transmission in order', '''Waits for the requests in flight, sends
NBD_CMD_DISC and waits for the server to hang up.  With LIBNBD_SHUTDOWN_ABANDON_PENDING, requests
of which nothing was sent fail with ESHUTDOWN instead.''', 'Terminating the transmission phase'),
    'aio_pread': ('begin to read', f'{_AIO}\n\n{_DONE}', 'NBD_CMD_READ'),
    'aio_pread_structured': ('begin to read, and hear of each part',
                             f'As nbd_pread_structured(3).\n\n{_AIO}\n\n{_DONE}',
                             'NBD_CMD_READ'),
    'aio_pwrite': ('begin to write', f'{_AIO}\n\n{_DONE}', 'NBD_CMD_WRITE'),
    'aio_flush': ('begin to flush', f'{_AIO}\n\n{_DONE}', 'NBD_CMD_FLUSH'),
    'aio_trim': ('begin to trim', f'{_AIO}\n\n{_DONE}', 'NBD_CMD_TRIM'),
    'aio_cache': ('begin to cache', f'{_AIO}\n\n{_DONE}', 'NBD_CMD_CACHE'),
    'aio_zero': ('begin to write zeroes', f'As nbd_zero(3).\n\n{_AIO}\n\n{_DONE}',
                 'NBD_CMD_WRITE_ZEROES'),
    'aio_block_status': ('begin to ask for the status of a range',
                         f'As nbd_block_status(3).\n\n{_AIO}\n\n{_DONE}',
                         'NBD_CMD_BLOCK_STATUS'),
    'aio_block_status_64': ('begin to ask for the status of a range, in 64 bits',
                            f'As nbd_block_status_64(3).\n\n{_AIO}\n\n{_DONE}',
                            'NBD_CMD_BLOCK_STATUS'),
    'aio_block_status_filter': ('begin to ask for the status of a range in some contexts',
                                f'As nbd_block_status_filter(3).\n\n{_AIO}\n\n{_DONE}',
                                'Extended headers'),
    'aio_disconnect': ('tell the server that the end has come', '''No request may follow.  Those
in flight are still answered; nbd_aio_is_closed(3) is true when the server has hung up.  No flag
is known.''', 'NBD_CMD_DISC'),
    # waiting
    'poll': ('send, wait and receive', '''Sends what is queued, waits for something to happen,
and acts on all that has come.  Returns 1 when there was progress, 0 when the time is up.  May be
called by several threads: one waits on the socket, the others for it.''', ''),
    'poll2': ('send, wait and receive, or wait for another descriptor', '''As nbd_poll(3), and
returns 1 also when the other descriptor is readable, which is left to the caller.''', ''),
    'aio_get_fd': ('tell the descriptor to poll', '''Poll it for what nbd_aio_get_direction(3)
says.  Do nothing else with it.  EINVAL when there is no connection.''', ''),
    'aio_get_direction': ('tell what to poll for', '''LIBNBD_AIO_DIRECTION_READ: then call
nbd_aio_notify_read(3); LIBNBD_AIO_DIRECTION_WRITE: then call nbd_aio_notify_write(3);
LIBNBD_AIO_DIRECTION_BOTH: call either, of both nbd_aio_notify_read(3).  0: there is nothing to
wait for.''', ''),
    'aio_notify_read': ('go on: the descriptor is readable', '''Acts on all that has come and
sends what is queued.  A call without need does no harm.''', ''),
    'aio_notify_write': ('go on: the descriptor is writable', '''EINVAL when nothing is to be
sent.''', ''),
    # states
    'aio_is_created': ('tell whether the handle is new', '', ''),
    'aio_is_connecting': ('tell whether the handle is connecting', '''Also while an option is
under way.''', ''),
    'aio_is_negotiating': ('tell whether an option may be sent', '', ''),
    'aio_is_ready': ('tell whether the handle rests between messages', '''Requests may be issued
then, and while nbd_aio_is_processing(3).''', ''),
    'aio_is_processing': ('tell whether a message is partly transferred', '', ''),
    'aio_is_dead': ('tell whether the connection failed', '', ''),
    'aio_is_closed': ('tell whether the connection was closed in order', '', ''),
    'aio_command_completed': ('ask for the result of a request, and retire it', '''Returns 1 when
it has succeeded, 0 when it is not complete or unknown, -1 with its errno when it failed.  A
request that is complete stays until this was called, unless its callback returned 1.''', ''),
    'aio_peek_command_completed': ('tell the cookie of a request that is complete', '''The one
that was completed first and is not retired; 0 when there is none yet; EINVAL when none is in
flight either.''', ''),
    'aio_in_flight': ('count the requests in flight', '''Those whose reply is not complete,
queued ones included.''', ''),
    'connection_state': ('tell the state in words', '''For people: "NAME: what it means".''', ''),
    # nbdd.h
    'connect_addresses': ('connect to whichever of several addresses answers first', f'''The
addresses are tried in their order as nbd_connect_tcp(3) does; at most 64.  {_CONNECT}''', ''),
    'aio_connect_addresses': ('begin to connect to one of several addresses', _CONNECT_AIO, ''),
    'dial': ('connect a socket, without a handle', '''As nbdd_connect_addresses(3), up to where the
first byte would be sent or received.  Returns the socket, in blocking mode, which is the
caller's; nbd_connect_socket(3) goes on with it, if need be in a process that may open
nothing itself.''', ''),
    'dial_several': ('connect several sockets at once, without a handle', '''nr_fds connections, each
made as by nbdd_dial(3), at the same time.  Returns how many of them could be made: in the places
of fds are the sockets, in blocking mode, which are the caller's, and the negative error numbers
of others.  What has not come to an end late milliseconds after the first of them was connected
is given up: \u2212ETIMEDOUT.  EINVAL: nr_fds is none of 1 to 64.''', ''),
    'take_socket': ('give up the negotiated socket', '''Returns the socket, in blocking mode, at
the very start or between two requests of transmission; the handle is closed.  It is the
caller's.  EBUSY: requests are in flight; EPROTO: the server sent bytes that nobody asked for;
ENOTCONN: it has hung up; ENOTSUP: structured replies, extended headers or TLS are in use,
which the kernel's nbd driver does not know.''', 'Transmission'),
    'set_tls_ca_file': ('choose the file of CAs', '''One of these prove the server's certificate
genuine.  With this, nbdd_set_tls_certificate_file(3) or nbdd_set_tls_key_file(3) no directory of
certificates is used; without a file of CAs, those that the system trusts.''', ''),
    'set_tls_certificate_file': ('choose the file of our certificate', '''For servers that want
one; its key is in the file of nbdd_set_tls_key_file(3), or in this one, too.''', ''),
    'set_tls_key_file': ('choose the file of our key', '''The key of the certificate in the file of
nbdd_set_tls_certificate_file(3), or in this one, too.  Only the owner and the group may be able to
read it.''', ''),
    'read_tls_credentials': ('read keys and certificates into memory', '''Reads the files that
the handle would use for TLS, by nbd_set_tls_certificates(3), nbd_set_tls_psk_file(3) and
nbd_set_tls_username(3) or the directories that are searched without them, and checks that they
are usable; where there is no CA, the file of those that the system trusts.  Of a file of
pre-shared keys only the user's is returned.  A file with a key that is open to everybody is
EACCES.  The result is freed by nbdd_free_tls_credentials(3).''', ''),
    'free_tls_credentials': ('wipe and free keys and certificates', '''NULL is ignored.''', ''),
    'set_tls_credentials': ('use keys and certificates in memory', '''In place of those in files:
no file is read then.  They are not copied and must live until the handshake is over; NULL forgets
them.  ca and the like may be empty, psk takes the place of certificates.''', ''),
    'take_tls_socket': ('give up the negotiated socket of a TLS connection', '''As
nbdd_take_socket(3), for a connection on which TLS is active: fills in the keys and the numbers of
the next records of both directions, with which the kernel or another program goes on.  Messages
of TLS that have arrived, such as session tickets, are taken in before; no alert is sent.  The
caller wipes what was filled in after use.  ENOTSUP: TLS is not active, or its version, cipher or
record size cannot be taken over; EPROTO: the server sent bytes that nobody asked for, or part of
a record.''', 'NBD_OPT_STARTTLS'),
    'get_tls_info': ('tell version, cipher and certificates of TLS', '''EINVAL when TLS is not
active.  The names are those for which the server's certificate was made, or its common name.''',
                     'NBD_OPT_STARTTLS'),
    'preadv': ('read into several buffers', '''Any number of buffers, of any length; the data is
received into them.  The array is copied.''', 'NBD_CMD_READ'),
    'pwritev': ('write from several buffers', '''Any number of buffers, of any length; they are
sent as they are.  The array is copied.''', 'NBD_CMD_WRITE'),
    'aio_preadv': ('begin to read into several buffers', f'{_AIO}\n\n{_DONE}', 'NBD_CMD_READ'),
    'aio_pwritev': ('begin to write from several buffers', f'{_AIO}\n\n{_DONE}',
                    'NBD_CMD_WRITE'),
    'get_transmission_flags': ('tell the export\'s transmission flags', '''The 16 bits as the
server sent them.''', 'Transmission flags'),
    'get_option_reply': ('tell how the server answered the last option', '''The type of its last
reply: 1 for NBD_REP_ACK, 2^31 + 2 for NBD_REP_ERR_POLICY and so on; -1 when no option was
answered.''', 'Option reply types'),
    'uri_parse': ('take an NBD URI apart', '''Without a handle and without connecting.  The
result is freed by nbdd_uri_free(3).''', ''),
    'uri_free': ('free a parsed URI', '''NULL is ignored.''', ''),
}
