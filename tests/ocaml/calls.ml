(* calls.ml KIT EXTENDED PORT PSK-SOCKET PSK-FILE: a test of each call of the modules NBD and
   NBDD, named as it is.  Prints a line for each: ok NAME, or not ok NAME: why.

   KIT is the Unix socket of nbdkit's memory plugin with 8 MiB, EXTENDED that of a server with
   extended headers, PORT a TCP port of the former kind, PSK-SOCKET that of a server that
   demands TLS with the keys of PSK-FILE, for the user alice. *)

let kit, extended, port, psk_socket, psk_file =
  Sys.(argv.(1), argv.(2), argv.(3), argv.(4), argv.(5))

let size = Int64.of_int (8 lsl 20)
let fresh f = NBD.with_handle f

let connected ?(path = kit) f =
  fresh (fun h ->
      NBD.add_meta_context h NBD.context_base_allocation;
      NBD.connect_unix h path;
      f h)

let negotiating ?(path = kit) f =
  fresh (fun h ->
      NBD.set_opt_mode h true;
      NBD.connect_unix h path;
      f h)

let equal a b = if a <> b then failwith "not equal"
let holds what = if not what then failwith "does not hold"
let same_string a b = if a <> b then failwith (Printf.sprintf "%S, not %S" b a)

let contains part text =
  let n = String.length part in
  let rec at i = i + n <= String.length text && (String.sub text i n = part || at (i + 1)) in
  at 0

let fails ?errno part f =
  match f () with
  | _ -> failwith "did not fail"
  | exception NBD.Error (text, e) ->
    if not (contains part text) then failwith (Printf.sprintf "%S without %S" text part);
    Option.iter (fun errno -> equal e (Some errno)) errno

(* Poll until it is so. *)
let until h condition = while not (condition h) do ignore (NBD.poll h (-1)) done

let completed h cookie = until h (fun h -> NBD.aio_command_completed h cookie)
let usable h = NBD.aio_is_ready h || NBD.aio_is_negotiating h

(* An option of the aio kind: its errno. *)
let option h call =
  let error = ref (-1) in
  ignore (call (fun e -> error := !e; 0));
  until h (fun h -> not (NBD.aio_is_connecting h));
  !error

let pattern n = Bytes.init n (fun i -> Char.chr (i * 7 land 255))
let nbdkit = [ "nbdkit"; "-s"; "--exit-with-parent"; "memory"; "1M" ]
let activated = [ "nbdkit"; "--exit-with-parent"; "memory"; "1M" ]

(* set_X and get_X of a bool. *)
let flag set get h = List.iter (fun v -> set h v; equal v (get h)) [ false; true; false ]
let text set get h = set h "some text"; same_string "some text" (get h)
let all_flags = NBD.HANDSHAKE_FLAG.mask

let extents_of call =
  let total = ref 0L in
  call (fun name offset entries error ->
      equal 0 !error;
      same_string "base:allocation" name;
      equal 0L offset;
      Array.iteri (fun i n -> if i mod 2 = 0 then total := Int64.add !total n) entries;
      0);
  holds (!total > 0L)

let extents64_of call =
  let total = ref 0L in
  call (fun name offset entries error ->
      equal 0 !error;
      same_string "base:allocation" name;
      equal 0L offset;
      Array.iter (fun (n, _) -> total := Int64.add !total n) entries;
      0);
  holds (!total > 0L)

let chunks_of data call =
  let seen = ref 0 in
  call (fun piece offset status error ->
      equal 0 !error;
      equal (Int32.to_int NBD.read_data) status;
      equal piece (Bytes.sub data (Int64.to_int offset) (Bytes.length piece));
      seen := !seen + Bytes.length piece;
      0);
  equal (Bytes.length data) !seen

let names_of call =
  let names = ref [] in
  let count = call (fun name -> names := name :: !names; 0) in
  equal (List.length !names) count;
  holds (List.mem "base:allocation" !names)

let with_data f =
  connected (fun h ->
      let data = pattern 4096 in
      NBD.pwrite h data 0L;
      f h data)

let every_byte c n = Bytes.make n c

let slices sizes =
  List.map
    (fun n ->
      let b = NBDD.bigarray (NBD.Buffer.alloc (n + 8)) in
      Bigarray.Array1.fill b 'x';
      { NBDD.buffer = b; off = 4; len = n })
    sizes

let contents slices =
  String.concat ""
    (List.map
       (fun s -> String.init s.NBDD.len (fun i -> Bigarray.Array1.get s.NBDD.buffer (s.off + i)))
       slices)

let unix_address = Unix.ADDR_UNIX kit

let socket () =
  let s = Unix.socket ~cloexec:true Unix.PF_UNIX Unix.SOCK_STREAM 0 in
  Unix.connect s unix_address;
  s

let served call = fresh (fun h -> call h; until h usable; equal size (NBD.get_size h))
let status_flag get = connected (fun h -> holds (List.mem (get h) [ true; false ]))

let tests =
  [ "create", (fun () -> fresh (fun h -> holds (NBD.aio_is_created h)));
    "close", (fun () ->
      let h = NBD.create () in
      NBD.close h;
      NBD.close h;
      match NBD.get_debug h with
      | _ -> failwith "not closed"
      | exception NBD.Closed name -> same_string "NBD.get_debug" name);
    "set_handle_name", (fun () -> fresh (text NBD.set_handle_name NBD.get_handle_name));
    "get_handle_name", (fun () -> fresh (fun h -> holds (contains "nbd" (NBD.get_handle_name h))));
    "set_private_data", (fun () -> fresh (fun h ->
      equal 0 (NBD.set_private_data h max_int);
      equal max_int (NBD.set_private_data h 7)));
    "get_private_data", (fun () -> fresh (fun h ->
      ignore (NBD.set_private_data h (-5));
      equal (-5) (NBD.get_private_data h)));
    "get_package_name", (fun () -> fresh (fun h -> same_string "libnbd" (NBD.get_package_name h)));
    "get_version", (fun () -> fresh (fun h -> holds (contains "1." (NBD.get_version h))));
    "get_version_extra", (fun () -> fresh (fun h -> ignore (NBD.get_version_extra h : string)));
    "get_handle_size", (fun () -> fresh (fun h -> holds (NBD.get_handle_size h > 0)));
    "kill_subprocess", (fun () -> fresh (fun h ->
      NBD.connect_command h nbdkit;
      NBD.kill_subprocess h 9;
      until h (fun h -> NBD.aio_is_dead h || NBD.aio_is_closed h)));
    "get_subprocess_pid", (fun () -> fresh (fun h ->
      fails ~errno:Unix.ESRCH "nbd_get_subprocess_pid" (fun () -> NBD.get_subprocess_pid h);
      NBD.connect_command h nbdkit;
      Unix.kill (Int64.to_int (NBD.get_subprocess_pid h)) 0));
    "set_debug", (fun () -> fresh (flag NBD.set_debug NBD.get_debug));
    "get_debug", (fun () -> fresh (fun h -> equal false (NBD.get_debug h)));
    "set_debug_callback", (fun () -> fresh (fun h ->
      let seen = ref [] in
      NBD.set_debug_callback h (fun context message -> seen := (context, message) :: !seen; 0);
      NBD.set_debug h true;
      ignore (NBD.get_handle_name h);
      holds (List.mem ("nbd_get_handle_name", "enter:") !seen)));
    "clear_debug_callback", (fun () -> fresh (fun h ->
      NBD.set_debug_callback h (fun _ _ -> failwith "cleared");
      NBD.clear_debug_callback h;
      ignore (NBD.get_handle_name h)));
    "stats_bytes_sent", (fun () -> connected (fun h -> holds (NBD.stats_bytes_sent h > 0L)));
    "stats_chunks_sent", (fun () -> connected (fun h ->
      let before = NBD.stats_chunks_sent h in
      NBD.flush h;
      equal (Int64.succ before) (NBD.stats_chunks_sent h)));
    "stats_bytes_received", (fun () -> connected (fun h -> holds (NBD.stats_bytes_received h > 0L)));
    "stats_chunks_received", (fun () -> connected (fun h ->
      let before = NBD.stats_chunks_received h in
      NBD.flush h;
      equal (Int64.succ before) (NBD.stats_chunks_received h)));
    "set_export_name", (fun () -> fresh (text NBD.set_export_name NBD.get_export_name));
    "get_export_name", (fun () -> fresh (fun h -> same_string "" (NBD.get_export_name h)));
    "set_request_block_size", (fun () ->
      fresh (flag NBD.set_request_block_size NBD.get_request_block_size));
    "get_request_block_size", (fun () -> fresh (fun h -> holds (NBD.get_request_block_size h)));
    "set_full_info", (fun () -> fresh (flag NBD.set_full_info NBD.get_full_info));
    "get_full_info", (fun () -> fresh (fun h -> equal false (NBD.get_full_info h)));
    "set_request_structured_replies", (fun () ->
      fresh (flag NBD.set_request_structured_replies NBD.get_request_structured_replies));
    "get_request_structured_replies", (fun () ->
      fresh (fun h -> holds (NBD.get_request_structured_replies h)));
    "set_handshake_flags", (fun () -> fresh (fun h ->
      NBD.set_handshake_flags h [ NBD.HANDSHAKE_FLAG.NO_ZEROES ];
      equal [ NBD.HANDSHAKE_FLAG.NO_ZEROES ] (NBD.get_handshake_flags h);
      fails ~errno:Unix.EINVAL "0x80" (fun () ->
        NBD.set_handshake_flags h [ NBD.HANDSHAKE_FLAG.UNKNOWN 7 ])));
    "get_handshake_flags", (fun () -> fresh (fun h -> equal all_flags (NBD.get_handshake_flags h)));
    "set_pread_initialize", (fun () ->
      fresh (flag NBD.set_pread_initialize NBD.get_pread_initialize));
    "get_pread_initialize", (fun () -> fresh (fun h -> holds (NBD.get_pread_initialize h)));
    "set_strict_mode", (fun () -> fresh (fun h ->
      NBD.set_strict_mode h [ NBD.STRICT.BOUNDS; NBD.STRICT.UNKNOWN 1 ];
      equal [ NBD.STRICT.FLAGS; NBD.STRICT.BOUNDS ] (NBD.get_strict_mode h);
      match NBD.set_strict_mode h [ NBD.STRICT.UNKNOWN 32 ] with
      | () -> failwith "bit 32"
      | exception Invalid_argument _ -> ()));
    "get_strict_mode", (fun () -> fresh (fun h ->
      holds (List.mem NBD.STRICT.COMMANDS (NBD.get_strict_mode h))));
    "set_opt_mode", (fun () -> fresh (flag NBD.set_opt_mode NBD.get_opt_mode));
    "get_opt_mode", (fun () -> fresh (fun h -> equal false (NBD.get_opt_mode h)));
    "set_request_extended_headers", (fun () ->
      fresh (flag NBD.set_request_extended_headers NBD.get_request_extended_headers));
    "get_request_extended_headers", (fun () ->
      fresh (fun h -> holds (NBD.get_request_extended_headers h)));
    "set_tls", (fun () -> fresh (fun h ->
      NBD.set_tls h NBD.TLS.REQUIRE;
      equal NBD.TLS.REQUIRE (NBD.get_tls h);
      NBD.set_tls h (NBD.TLS.UNKNOWN 1);
      equal NBD.TLS.ALLOW (NBD.get_tls h);
      fails ~errno:Unix.EINVAL "tls" (fun () -> NBD.set_tls h (NBD.TLS.UNKNOWN 9))));
    "get_tls", (fun () -> fresh (fun h -> equal NBD.TLS.DISABLE (NBD.get_tls h)));
    "get_tls_negotiated", (fun () ->
      connected (fun h -> equal false (NBD.get_tls_negotiated h)));
    "set_tls_certificates", (fun () -> fresh (fun h ->
      NBD.set_tls_certificates h "/nonexistent";
      NBD.set_tls h NBD.TLS.REQUIRE;
      fails "/nonexistent" (fun () -> NBD.connect_unix h psk_socket)));
    "set_tls_ca_file", (fun () -> fresh (fun h ->
      NBDD.set_tls_ca_file h "/nonexistent/ca";
      NBD.set_tls h NBD.TLS.REQUIRE;
      fails "/nonexistent/ca" (fun () -> NBD.connect_unix h psk_socket)));
    "set_tls_certificate_file", (fun () -> fresh (fun h ->
      NBDD.set_tls_certificate_file h "/nonexistent/cert";
      NBDD.set_tls_key_file h "/dev/null";
      NBD.set_tls h NBD.TLS.REQUIRE;
      fails "/nonexistent/cert" (fun () -> NBD.connect_unix h psk_socket)));
    "set_tls_key_file", (fun () -> fresh (fun h ->
      NBDD.set_tls_certificate_file h psk_file;
      NBDD.set_tls_key_file h "/nonexistent/key";
      NBD.set_tls h NBD.TLS.REQUIRE;
      fails "/nonexistent/key" (fun () -> NBD.connect_unix h psk_socket)));
    "set_tls_verify_peer", (fun () -> fresh (flag NBD.set_tls_verify_peer NBD.get_tls_verify_peer));
    "get_tls_verify_peer", (fun () -> fresh (fun h -> holds (NBD.get_tls_verify_peer h)));
    "set_tls_username", (fun () -> fresh (text NBD.set_tls_username NBD.get_tls_username));
    "get_tls_username", (fun () -> fresh (fun h ->
      NBD.set_tls_username h "bob";
      same_string "bob" (NBD.get_tls_username h)));
    "set_tls_psk_file", (fun () -> fresh (fun h ->
      NBD.set_tls h NBD.TLS.REQUIRE;
      NBD.set_tls_psk_file h psk_file;
      NBD.set_tls_username h "alice";
      NBD.connect_unix h psk_socket;
      holds (NBD.get_tls_negotiated h)));
    "supports_tls", (fun () -> fresh (fun h -> holds (NBD.supports_tls h)));
    "set_tls_hostname", (fun () -> fresh (text NBD.set_tls_hostname NBD.get_tls_hostname));
    "get_tls_hostname", (fun () -> fresh (fun h ->
      NBD.set_tls_hostname h "a.example";
      same_string "a.example" (NBD.get_tls_hostname h)));
    "set_tls_priority", (fun () -> fresh (fun h ->
      NBD.set_tls_priority h "NORMAL";
      same_string "NORMAL" (NBD.get_tls_priority h)));
    "get_tls_priority", (fun () -> fresh (fun h -> ignore (NBD.get_tls_priority h : string)));
    "opt_list_meta_context", (fun () -> negotiating (fun h -> names_of (NBD.opt_list_meta_context h)));
    "add_meta_context", (fun () -> fresh (fun h ->
      NBD.add_meta_context h "x:y";
      equal 1 (NBD.get_nr_meta_contexts h)));
    "get_nr_meta_contexts", (fun () -> fresh (fun h -> equal 0 (NBD.get_nr_meta_contexts h)));
    "get_meta_context", (fun () -> fresh (fun h ->
      NBD.add_meta_context h "x:y";
      same_string "x:y" (NBD.get_meta_context h 0);
      fails ~errno:Unix.EINVAL "nbd_get_meta_context" (fun () -> NBD.get_meta_context h 1);
      fails ~errno:Unix.EINVAL "nbd_get_meta_context" (fun () -> NBD.get_meta_context h (-1))));
    "clear_meta_contexts", (fun () -> fresh (fun h ->
      NBD.add_meta_context h "x:y";
      NBD.clear_meta_contexts h;
      equal 0 (NBD.get_nr_meta_contexts h)));
    "aio_opt_list_meta_context", (fun () -> negotiating (fun h ->
      let n = ref 0 in
      equal 0 (option h (fun completion ->
        NBD.aio_opt_list_meta_context ~completion h (fun _ -> incr n; 0)));
      holds (!n > 0)));
    "opt_list_meta_context_queries", (fun () -> negotiating (fun h ->
      names_of (NBD.opt_list_meta_context_queries h [ "base:" ]);
      equal 0 (NBD.opt_list_meta_context_queries h [ "no:such" ] (fun _ -> 0))));
    "aio_opt_list_meta_context_queries", (fun () -> negotiating (fun h ->
      let n = ref 0 in
      equal 0 (option h (fun completion ->
        NBD.aio_opt_list_meta_context_queries ~completion h [ "base:" ] (fun _ -> incr n; 0)));
      equal 1 !n));
    "set_request_meta_context", (fun () ->
      fresh (flag NBD.set_request_meta_context NBD.get_request_meta_context));
    "get_request_meta_context", (fun () -> fresh (fun h -> holds (NBD.get_request_meta_context h)));
    "opt_set_meta_context", (fun () -> negotiating (fun h ->
      NBD.add_meta_context h "base:allocation";
      names_of (NBD.opt_set_meta_context h)));
    "opt_set_meta_context_queries", (fun () -> negotiating (fun h ->
      names_of (NBD.opt_set_meta_context_queries h [ "base:allocation" ])));
    "aio_opt_set_meta_context", (fun () -> negotiating (fun h ->
      NBD.add_meta_context h "base:allocation";
      equal 0 (option h (fun completion ->
        NBD.aio_opt_set_meta_context ~completion h (fun _ -> 0)));
      holds (NBD.can_meta_context h "base:allocation")));
    "aio_opt_set_meta_context_queries", (fun () -> negotiating (fun h ->
      equal 0 (option h (fun completion ->
        NBD.aio_opt_set_meta_context_queries ~completion h [ "base:allocation" ] (fun _ -> 0)));
      holds (NBD.can_meta_context h "base:allocation")));
    "set_uri_allow_transports", (fun () -> fresh (fun h ->
      NBD.set_uri_allow_transports h [ NBD.ALLOW_TRANSPORT.TCP ];
      fails ~errno:Unix.EPERM "not permitted" (fun () ->
        NBD.connect_uri h ("nbd+unix:///?socket=" ^ kit))));
    "set_uri_allow_tls", (fun () -> fresh (fun h ->
      NBD.set_uri_allow_tls h NBD.TLS.REQUIRE;
      fails ~errno:Unix.EPERM "not permitted" (fun () ->
        NBD.connect_uri h ("nbd+unix:///?socket=" ^ kit))));
    "set_uri_allow_local_file", (fun () -> fresh (fun h ->
      NBD.set_uri_allow_local_file h true;
      NBD.connect_uri h
        (Printf.sprintf "nbds+unix://alice@/?socket=%s&tls-psk-file=%s" psk_socket psk_file)));
    "connect_uri", (fun () -> served (fun h -> NBD.connect_uri h ("nbd+unix:///?socket=" ^ kit)));
    "aio_connect_uri", (fun () ->
      served (fun h -> NBD.aio_connect_uri h ("nbd+unix:///?socket=" ^ kit)));
    "supports_uri", (fun () -> fresh (fun h -> holds (NBD.supports_uri h)));
    "get_uri", (fun () -> connected (fun h ->
      let uri = NBD.get_uri h in
      served (fun h -> NBD.connect_uri h uri)));
    "is_uri", (fun () -> fresh (fun h ->
      holds (NBD.is_uri h "nbd://localhost");
      equal false (NBD.is_uri h "localhost")));
    "set_uri_allow_tls_priority", (fun () -> fresh (fun h ->
      NBD.set_uri_allow_tls_priority h true));
    "connect_unix", (fun () -> served (fun h -> NBD.connect_unix h kit));
    "connect_vsock", (fun () -> fresh (fun h ->
      fails "nbd_connect_vsock" (fun () -> NBD.connect_vsock h 1L 4294967295L);
      match NBD.connect_vsock h 0x1_0000_0000L 1L with
      | () -> failwith "too large a cid"
      | exception Invalid_argument _ -> ()));
    "connect_tcp", (fun () -> served (fun h -> NBD.connect_tcp h "localhost" port));
    "connect_socket", (fun () -> served (fun h -> NBD.connect_socket h (socket ())));
    "connect_command", (fun () -> fresh (fun h ->
      NBD.connect_command h nbdkit;
      equal 1048576L (NBD.get_size h)));
    "connect_systemd_socket_activation", (fun () -> fresh (fun h ->
      NBD.connect_systemd_socket_activation h activated;
      equal 1048576L (NBD.get_size h)));
    "aio_connect", (fun () -> served (fun h -> NBD.aio_connect h unix_address);
      served (fun h ->
        NBD.aio_connect h (Unix.ADDR_INET (Unix.inet_addr_loopback, int_of_string port))));
    "aio_connect_unix", (fun () -> served (fun h -> NBD.aio_connect_unix h kit));
    "aio_connect_vsock", (fun () -> fresh (fun h ->
      match
        NBD.aio_connect_vsock h 1L 4294967295L;
        until h (fun h -> not (NBD.aio_is_connecting h))
      with
      | () | (exception NBD.Error _) -> holds (not (usable h))));
    "aio_connect_tcp", (fun () -> served (fun h -> NBD.aio_connect_tcp h "127.0.0.1" port));
    "aio_connect_socket", (fun () -> served (fun h -> NBD.aio_connect_socket h (socket ())));
    "aio_connect_command", (fun () -> fresh (fun h ->
      NBD.aio_connect_command h nbdkit;
      until h usable));
    "aio_connect_systemd_socket_activation", (fun () -> fresh (fun h ->
      NBD.aio_connect_systemd_socket_activation h activated;
      until h usable));
    "set_socket_activation_name", (fun () ->
      fresh (fun h ->
        NBD.set_socket_activation_name h "name";
        same_string "name" (NBD.get_socket_activation_name h)));
    "get_socket_activation_name", (fun () ->
      fresh (fun h -> same_string "" (NBD.get_socket_activation_name h)));
    "opt_go", (fun () -> negotiating (fun h -> NBD.opt_go h; equal size (NBD.get_size h)));
    "opt_abort", (fun () -> negotiating (fun h ->
      NBD.opt_abort h;
      until h NBD.aio_is_closed));
    "opt_list", (fun () -> negotiating (fun h ->
      let names = ref [] in
      equal 1 (NBD.opt_list h (fun name description ->
        names := (name, description) :: !names;
        0));
      equal [ "", "" ] !names));
    "opt_info", (fun () -> negotiating (fun h ->
      fails "nbd_get_size" (fun () -> NBD.get_size h);
      NBD.opt_info h;
      equal size (NBD.get_size h)));
    "aio_opt_go", (fun () -> negotiating (fun h ->
      equal 0 (option h (fun completion -> NBD.aio_opt_go ~completion h));
      holds (NBD.aio_is_ready h)));
    "aio_opt_abort", (fun () -> negotiating (fun h ->
      NBD.aio_opt_abort h;
      until h NBD.aio_is_closed));
    "aio_opt_list", (fun () -> negotiating (fun h ->
      let n = ref 0 in
      equal 0 (option h (fun completion ->
        NBD.aio_opt_list ~completion h (fun _ _ -> incr n; 0)));
      equal 1 !n));
    "aio_opt_info", (fun () -> negotiating (fun h ->
      equal 0 (option h (fun completion -> NBD.aio_opt_info ~completion h));
      equal size (NBD.get_size h)));
    "opt_structured_reply", (fun () -> fresh (fun h ->
      NBD.set_opt_mode h true;
      NBD.set_request_structured_replies h false;
      NBD.connect_unix h kit;
      holds (NBD.opt_structured_reply h)));
    "aio_opt_structured_reply", (fun () -> fresh (fun h ->
      NBD.set_opt_mode h true;
      NBD.set_request_structured_replies h false;
      NBD.connect_unix h kit;
      equal 0 (option h (fun completion -> NBD.aio_opt_structured_reply ~completion h));
      holds (NBD.get_structured_replies_negotiated h)));
    "opt_starttls", (fun () -> negotiating (fun h -> equal false (NBD.opt_starttls h)));
    "aio_opt_starttls", (fun () -> negotiating (fun h ->
      holds (option h (fun completion -> NBD.aio_opt_starttls ~completion h) <> 0)));
    "opt_extended_headers", (fun () -> fresh (fun h ->
      NBD.set_opt_mode h true;
      NBD.set_request_extended_headers h false;
      NBD.connect_unix h extended;
      holds (NBD.opt_extended_headers h)));
    "aio_opt_extended_headers", (fun () -> fresh (fun h ->
      NBD.set_opt_mode h true;
      NBD.set_request_extended_headers h false;
      NBD.connect_unix h extended;
      equal 0 (option h (fun completion -> NBD.aio_opt_extended_headers ~completion h));
      holds (NBD.get_extended_headers_negotiated h)));
    "get_canonical_export_name", (fun () -> connected (fun h ->
      fails ~errno:Unix.EOPNOTSUPP "nbd_get_canonical_export_name" (fun () ->
        NBD.get_canonical_export_name h)));
    "get_export_description", (fun () -> connected (fun h ->
      fails ~errno:Unix.EOPNOTSUPP "nbd_get_export_description" (fun () ->
        NBD.get_export_description h)));
    "get_structured_replies_negotiated", (fun () ->
      connected (fun h -> holds (NBD.get_structured_replies_negotiated h)));
    "is_read_only", (fun () -> connected (fun h -> equal false (NBD.is_read_only h)));
    "can_flush", (fun () -> connected (fun h -> holds (NBD.can_flush h)));
    "can_fua", (fun () -> connected (fun h -> holds (NBD.can_fua h)));
    "is_rotational", (fun () -> status_flag NBD.is_rotational);
    "can_trim", (fun () -> connected (fun h -> holds (NBD.can_trim h)));
    "can_zero", (fun () -> connected (fun h -> holds (NBD.can_zero h)));
    "can_fast_zero", (fun () -> status_flag NBD.can_fast_zero);
    "can_df", (fun () -> connected (fun h -> holds (NBD.can_df h)));
    "can_multi_conn", (fun () -> connected (fun h -> holds (NBD.can_multi_conn h)));
    "can_cache", (fun () -> connected (fun h -> holds (NBD.can_cache h)));
    "can_meta_context", (fun () -> connected (fun h ->
      holds (NBD.can_meta_context h "base:allocation");
      equal false (NBD.can_meta_context h "no:such")));
    "get_protocol", (fun () -> connected (fun h -> same_string "newstyle-fixed" (NBD.get_protocol h)));
    "get_size", (fun () -> connected (fun h -> equal size (NBD.get_size h)));
    "get_block_size", (fun () -> connected (fun h ->
      List.iter (fun s -> holds (NBD.get_block_size h s >= 0L))
        NBD.SIZE.[ MINIMUM; PREFERRED; MAXIMUM; PAYLOAD ];
      fails ~errno:Unix.EINVAL "size_type" (fun () ->
        NBD.get_block_size h (NBD.SIZE.UNKNOWN 77))));
    "supports_vsock", (fun () -> fresh (fun h -> ignore (NBD.supports_vsock h : bool)));
    "get_extended_headers_negotiated", (fun () ->
      connected (fun h -> equal false (NBD.get_extended_headers_negotiated h));
      connected ~path:extended (fun h -> holds (NBD.get_extended_headers_negotiated h)));
    "can_block_status_payload", (fun () ->
      connected (fun h -> equal false (NBD.can_block_status_payload h));
      connected ~path:extended (fun h -> holds (NBD.can_block_status_payload h)));
    "pread", (fun () -> with_data (fun h data ->
      let back = Bytes.create 4096 in
      NBD.pread h back 0L;
      equal data back;
      let untouched = every_byte 'u' 512 in
      fails ~errno:Unix.EINVAL "out of bounds" (fun () -> NBD.pread h untouched size);
      equal (every_byte 'u' 512) untouched));
    "pread_structured", (fun () -> with_data (fun h data ->
      let back = Bytes.create 4096 in
      chunks_of data (NBD.pread_structured ~flags:[ NBD.CMD_FLAG.DF ] h back 0L);
      equal data back));
    "pwrite", (fun () -> connected (fun h ->
      let data = every_byte 'w' 512 and back = Bytes.create 512 in
      NBD.pwrite h ~flags:[ NBD.CMD_FLAG.FUA ] data 8192L;
      NBD.pread h back 8192L;
      equal data back;
      fails ~errno:Unix.ENOSPC "out of bounds" (fun () -> NBD.pwrite h data size)));
    "shutdown", (fun () ->
      connected (fun h -> NBD.shutdown h; holds (NBD.aio_is_closed h));
      connected (fun h -> NBD.shutdown ~flags:[ NBD.SHUTDOWN.ABANDON_PENDING ] h));
    "flush", (fun () -> connected (fun h -> NBD.flush h));
    "trim", (fun () -> with_data (fun h _ ->
      NBD.trim h 4096L 0L;
      let back = Bytes.create 4096 in
      NBD.pread h back 0L;
      equal (every_byte '\000' 4096) back));
    "cache", (fun () -> connected (fun h -> NBD.cache h 4096L 0L));
    "zero", (fun () -> with_data (fun h _ ->
      NBD.zero ~flags:[ NBD.CMD_FLAG.NO_HOLE ] h 512L 512L;
      let back = Bytes.create 512 in
      NBD.pread h back 512L;
      equal (every_byte '\000' 512) back));
    "block_status", (fun () -> with_data (fun h _ ->
      extents_of (NBD.block_status ~flags:[ NBD.CMD_FLAG.REQ_ONE ] h 65536L 0L);
      extents_of (NBD.block_status h size 0L)));
    "block_status_64", (fun () ->
      connected (fun h -> extents64_of (NBD.block_status_64 h size 0L));
      connected ~path:extended (fun h ->
        extents64_of (NBD.block_status_64 h (NBD.get_size h) 0L)));
    "block_status_filter", (fun () -> connected ~path:extended (fun h ->
      extents64_of (NBD.block_status_filter h 65536L 0L [ "base:allocation" ])));
    "aio_pread", (fun () -> with_data (fun h data ->
      let buffer = NBD.Buffer.alloc 4096 in
      completed h (NBD.aio_pread h buffer 0L);
      equal data (NBD.Buffer.to_bytes buffer)));
    "aio_pread_structured", (fun () -> with_data (fun h data ->
      let buffer = NBD.Buffer.alloc 4096 and done_ = ref (-1) in
      chunks_of data (fun chunk ->
        ignore (NBD.aio_pread_structured h buffer 0L chunk ~flags:[ NBD.CMD_FLAG.DF ]
                  ~completion:(fun error -> done_ := !error; 1));
        until h (fun h -> NBD.aio_in_flight h = 0));
      equal 0 !done_;
      equal data (NBD.Buffer.to_bytes buffer)));
    "aio_pwrite", (fun () -> connected (fun h ->
      let data = pattern 4096 and back = Bytes.create 4096 in
      completed h (NBD.aio_pwrite h (NBD.Buffer.of_bytes data) 4096L ~flags:[ NBD.CMD_FLAG.FUA ]);
      NBD.pread h back 4096L;
      equal data back));
    "aio_disconnect", (fun () -> connected (fun h ->
      NBD.aio_disconnect h;
      until h NBD.aio_is_closed));
    "aio_flush", (fun () -> connected (fun h -> completed h (NBD.aio_flush h)));
    "aio_trim", (fun () -> connected (fun h -> completed h (NBD.aio_trim h 512L 0L)));
    "aio_cache", (fun () -> connected (fun h -> completed h (NBD.aio_cache h 512L 0L)));
    "aio_zero", (fun () -> connected (fun h ->
      let errors = ref [] in
      ignore (NBD.aio_zero h 512L 0L ~completion:(fun e -> errors := !e :: !errors; 1));
      until h (fun h -> NBD.aio_in_flight h = 0);
      equal [ 0 ] !errors));
    "aio_block_status", (fun () -> connected (fun h ->
      extents_of (fun extent -> completed h (NBD.aio_block_status h 65536L 0L extent))));
    "aio_block_status_64", (fun () -> connected (fun h ->
      extents64_of (fun extent -> completed h (NBD.aio_block_status_64 h 65536L 0L extent))));
    "aio_block_status_filter", (fun () -> connected ~path:extended (fun h ->
      extents64_of (fun extent ->
        completed h (NBD.aio_block_status_filter h 65536L 0L [ "base:allocation" ] extent))));
    "poll", (fun () -> connected (fun h ->
      equal 0 (NBD.poll h 0);
      match NBD.poll h (1 lsl 40) with
      | _ -> failwith "too large a timeout"
      | exception Invalid_argument _ -> ()));
    "aio_get_fd", (fun () ->
      connected (fun h -> ignore (Unix.fstat (NBD.aio_get_fd h)));
      fresh (fun h -> fails ~errno:Unix.EINVAL "nbd_aio_get_fd" (fun () -> NBD.aio_get_fd h)));
    "aio_get_direction", (fun () -> connected (fun h ->
      equal (Int32.to_int NBD.aio_direction_read) (NBD.aio_get_direction h)));
    "aio_notify_read", (fun () -> connected (fun h ->
      let cookie = NBD.aio_flush h in
      ignore (Unix.select [ NBD.aio_get_fd h ] [] [] 10.);
      while not (NBD.aio_command_completed h cookie) do NBD.aio_notify_read h done));
    "aio_notify_write", (fun () -> connected (fun h ->
      let a = NBD.aio_flush h in
      let b = NBD.aio_flush h in
      let write = Int32.to_int NBD.aio_direction_write in
      holds (NBD.aio_get_direction h land write <> 0);
      NBD.aio_notify_write h;
      equal 0 (NBD.aio_get_direction h land write);
      List.iter (completed h) [ a; b ]));
    "poll2", (fun () -> connected (fun h ->
      let r, w = Unix.pipe ~cloexec:true () in
      equal 0 (NBD.poll2 h r 0);
      ignore (Unix.write_substring w "x" 0 1);
      equal 1 (NBD.poll2 h r (-1));
      List.iter Unix.close [ r; w ]));
    "aio_is_created", (fun () -> connected (fun h -> equal false (NBD.aio_is_created h)));
    "aio_is_connecting", (fun () -> fresh (fun h ->
      NBD.aio_connect_unix h kit;
      holds (NBD.aio_is_connecting h)));
    "aio_is_negotiating", (fun () -> negotiating (fun h -> holds (NBD.aio_is_negotiating h)));
    "aio_is_ready", (fun () -> connected (fun h -> holds (NBD.aio_is_ready h)));
    "aio_is_processing", (fun () -> connected (fun h -> equal false (NBD.aio_is_processing h)));
    "aio_is_dead", (fun () -> fresh (fun h ->
      fails "nbd_connect_unix" (fun () -> NBD.connect_unix h "/nonexistent");
      holds (NBD.aio_is_dead h)));
    "aio_is_closed", (fun () -> connected (fun h ->
      equal false (NBD.aio_is_closed h);
      NBD.shutdown h;
      holds (NBD.aio_is_closed h)));
    "aio_command_completed", (fun () -> connected (fun h ->
      let buffer = NBD.Buffer.alloc 512 in
      let cookie = NBD.aio_pread h buffer 0L ~completion:(fun e -> e := 5; -1) in
      fails ~errno:Unix.EIO "nbd_aio_command_completed" (fun () -> completed h cookie);
      equal false (NBD.aio_command_completed h cookie)));
    "aio_peek_command_completed", (fun () -> connected (fun h ->
      fails ~errno:Unix.EINVAL "no commands" (fun () -> NBD.aio_peek_command_completed h);
      let cookie = NBD.aio_flush h in
      until h (fun h -> NBD.aio_peek_command_completed h <> 0L);
      equal cookie (NBD.aio_peek_command_completed h)));
    "aio_in_flight", (fun () -> connected (fun h ->
      let cookie = NBD.aio_flush h in
      equal 1 (NBD.aio_in_flight h);
      completed h cookie;
      equal 0 (NBD.aio_in_flight h)));
    "connection_state", (fun () -> connected (fun h ->
      holds (contains "READY" (NBD.connection_state h))));
    (* nbdd.h *)
    "connect_addresses", (fun () ->
      served (fun h ->
        NBDD.connect_addresses h [ Unix.ADDR_UNIX "/nonexistent"; unix_address ]);
      fresh (fun h ->
        match NBDD.connect_addresses h [] with
        | () -> failwith "no address"
        | exception Invalid_argument _ -> ()));
    "aio_connect_addresses", (fun () ->
      served (fun h -> NBDD.aio_connect_addresses h [ unix_address ]));
    "take_socket", (fun () -> fresh (fun h ->
      NBD.set_request_structured_replies h false;
      NBD.connect_unix h kit;
      let s = NBDD.take_socket h in
      holds ((Unix.fstat s).Unix.st_kind = Unix.S_SOCK);
      Unix.close s));
    "preadv", (fun () -> with_data (fun h data ->
      let parts = slices [ 1; 0; 511; 3584 ] in
      NBDD.preadv h parts 0L;
      same_string (Bytes.to_string data) (contents parts);
      List.iter (fun p ->
        equal 'x' (Bigarray.Array1.get p.NBDD.buffer (p.off - 1));
        equal 'x' (Bigarray.Array1.get p.NBDD.buffer (p.off + p.len))) parts;
      match NBDD.preadv h [ { (List.hd parts) with len = 100 } ] 0L with
      | () -> failwith "a slice beyond its buffer"
      | exception Invalid_argument _ -> ()));
    "pwritev", (fun () -> connected (fun h ->
      NBDD.pwritev h (slices [ 100; 412 ]) 1024L;
      let back = Bytes.create 512 in
      NBD.pread h back 1024L;
      equal (every_byte 'x' 512) back));
    "aio_preadv", (fun () -> with_data (fun h data ->
      let parts = slices [ 7; 4089 ] in
      completed h (NBDD.aio_preadv h parts 0L);
      same_string (Bytes.to_string data) (contents parts)));
    "aio_pwritev", (fun () -> connected (fun h ->
      let done_ = ref (-1) in
      ignore (NBDD.aio_pwritev h (slices [ 100; 412 ]) 2048L ~flags:[ NBD.CMD_FLAG.FUA ]
                ~completion:(fun e -> done_ := !e; 1));
      until h (fun h -> NBD.aio_in_flight h = 0);
      equal 0 !done_;
      let back = Bytes.create 512 in
      NBD.pread h back 2048L;
      equal (every_byte 'x' 512) back));
    "get_transmission_flags", (fun () ->
      connected (fun h -> equal 1 (NBDD.get_transmission_flags h land 1)));
    "get_option_reply", (fun () -> negotiating (fun h ->
      ignore (NBD.opt_list h (fun _ _ -> 0));
      equal 1L (NBDD.get_option_reply h)));
    "uri_parse", (fun () ->
      let u = NBDD.uri_parse "nbds://alice@example.com/a%20b?tls-psk-file=/k" in
      equal (NBDD.TCP, true, "a b", Some "example.com", Some "10809", Some "alice", Some "/k", None)
        (u.transport, u.tls, u.export_name, u.host, u.port, u.username, u.tls_psk_file,
         u.socket_path);
      fails ~errno:Unix.EINVAL "scheme" (fun () -> NBDD.uri_parse "x")) ]

let () =
  List.iter
    (fun (name, test) ->
      match test () with
      | () -> Printf.printf "ok %s\n%!" name
      | exception e -> Printf.printf "not ok %s: %s\n%!" name (Printexc.to_string e))
    tests;
  (* Finalisers of what is left, and nothing that a root still holds. *)
  Gc.full_major ()
