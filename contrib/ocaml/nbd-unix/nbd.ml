open Lwt.Infix

module Protocol = struct
  module Error = struct
    type t = [ `EPERM | `EIO | `ENOMEM | `EINVAL | `ENOSPC | `Unknown of int32 ]

    (* On Linux the protocol's numbers are those of errno. *)
    let of_errno : int -> t = function
      | 1 -> `EPERM
      | 5 -> `EIO
      | 12 -> `ENOMEM
      | 22 -> `EINVAL
      | 28 -> `ENOSPC
      | n -> `Unknown (Int32.of_int n)

    let to_string : t -> string = function
      | `EPERM -> "EPERM"
      | `EIO -> "EIO"
      | `ENOMEM -> "ENOMEM"
      | `EINVAL -> "EINVAL"
      | `ENOSPC -> "ENOSPC"
      | `Unknown n -> Printf.sprintf "error %ld" n
  end

  module PerExportFlag = struct
    type t =
      | Read_only
      | Send_flush
      | Send_fua
      | Rotational
      | Send_trim
      | Send_write_zeroes
      | Send_df
      | Can_multi_conn
      | Send_resize
      | Send_cache
      | Send_fast_zero
      | Block_status_payload

    (* "Transmission flags": bit, name. *)
    let table =
      [ Read_only, 1, "read-only"; Send_flush, 2, "flush"; Send_fua, 3, "FUA";
        Rotational, 4, "rotational"; Send_trim, 5, "trim";
        Send_write_zeroes, 6, "write-zeroes"; Send_df, 7, "DF";
        Can_multi_conn, 8, "multi-conn"; Send_resize, 9, "resize"; Send_cache, 10, "cache";
        Send_fast_zero, 11, "fast-zero"; Block_status_payload, 12, "block-status-payload" ]

    let of_bits bits =
      List.filter_map
        (fun (flag, bit, _) -> if bits land (1 lsl bit) <> 0 then Some flag else None)
        table

    let to_string flag =
      let _, _, name = List.find (fun (f, _, _) -> f = flag) table in
      name
  end
end

module Channel = struct
  type channel = { loop : Nbd_loop.t; mutable taken : bool }

  type tls = {
    certificates : string option;
    psk_file : string option;
    username : string option;
    hostname : string option;
    verify_peer : bool;
  }

  let tls =
    { certificates = None; psk_file = None; username = None; hostname = None;
      verify_peer = true }

  type error = [ `Msg of string ]

  let loop c = c.loop
  let taken c = c.taken
  let take c = c.taken <- true
  let is_tls c = NBD.get_tls_negotiated (Nbd_loop.handle c.loop)

  let set_tls h t =
    NBD.set_tls h NBD.TLS.REQUIRE;
    NBD.set_tls_verify_peer h t.verify_peer;
    Option.iter (NBD.set_tls_certificates h) t.certificates;
    Option.iter (NBD.set_tls_psk_file h) t.psk_file;
    Option.iter (NBD.set_tls_username h) t.username;
    Option.iter (NBD.set_tls_hostname h) t.hostname

  let over h = not (NBD.aio_is_created h || NBD.aio_is_connecting h)
  let usable h = NBD.aio_is_negotiating h || NBD.aio_is_ready h || NBD.aio_is_processing h

  (* Connect in opt mode, so that the export can be chosen later. *)
  let connect ?tls call =
    let loop = Nbd_loop.create (NBD.create ()) in
    let h = Nbd_loop.handle loop in
    let failed text =
      Nbd_loop.close loop;
      Lwt.return (Error (`Msg text))
    in
    match
      NBD.set_opt_mode h true;
      Option.iter (set_tls h) tls;
      Nbd_loop.begin_ loop call
    with
    | exception NBD.Error (text, _) -> failed text
    | () ->
      Nbd_loop.until loop over >>= fun () ->
      if usable h then Lwt.return (Ok { loop; taken = false })
      else
        failed
          (match Nbd_loop.failure loop with
           | Some (text, _) -> text
           | None -> "the server closed the connection")

  let of_fd ?tls fd = connect ?tls (fun h -> NBD.aio_connect_socket h fd)
  let of_unix ?tls path = connect ?tls (fun h -> NBD.aio_connect_unix h path)

  (* As many as the library takes. *)
  let addresses_max = 64

  (* The library would resolve the name while everybody waits. *)
  let of_tcp ?tls host port =
    Lwt_unix.getaddrinfo host port [ Unix.AI_SOCKTYPE Unix.SOCK_STREAM ] >>= function
    | [] -> Lwt.return (Error (`Msg (Printf.sprintf "cannot resolve %s port %s" host port)))
    | found ->
      let tls =
        Option.map
          (fun t -> { t with hostname = Some (Option.value t.hostname ~default:host) })
          tls
      in
      let addresses =
        List.filteri (fun i _ -> i < addresses_max) found
        |> List.map (fun a -> a.Unix.ai_addr)
      in
      connect ?tls (fun h -> NBDD.aio_connect_addresses h addresses)

  let close c =
    let h = Nbd_loop.handle c.loop in
    if c.taken then Lwt.return_unit
    else begin
      c.taken <- true;
      let ended h = NBD.aio_is_closed h || NBD.aio_is_dead h in
      (match
         Nbd_loop.begin_ c.loop (fun h ->
             if NBD.aio_is_negotiating h then NBD.aio_opt_abort h
             else if not (ended h) then NBD.aio_disconnect h)
       with
       | () -> Lwt.pick [ Nbd_loop.until c.loop ended; Lwt_unix.sleep 5. ]
       | exception NBD.Error _ -> ignore h; Lwt.return_unit)
      >|= fun () -> Nbd_loop.close c.loop
    end
end
