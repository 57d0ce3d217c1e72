(* disk.ml TEST SOCKET [MORE]: nbd-unix against the server at SOCKET. *)

open Lwt.Infix
module Channel = Nbd.Channel

let socket = Sys.argv.(2)
let more i = Sys.argv.(2 + i)
let say fmt = Printf.printf (fmt ^^ "\n%!")

let channel ?tls () =
  Channel.of_unix ?tls socket >>= function
  | Ok c -> Lwt.return c
  | Error (`Msg text) -> Lwt.fail_with text

let disk ?(export = "") () =
  channel () >>= fun c ->
  Nbd_unix.negotiate c export >|= fun (disk, _, _) -> disk

let told = function
  | Ok () -> "ok"
  | Error e -> Format.asprintf "%a" Nbd_unix.pp_write_error e

let widen = function Ok () -> Ok () | Error e -> Error (e : Nbd_unix.error :> Nbd_unix.write_error)
let read disk sector buffers = Nbd_unix.read disk sector buffers >|= widen
let ok what = Lwt.map (fun r -> if r <> Ok () then failwith (what ^ ": " ^ told r))

let filled n f =
  let c = Cstruct.create n in
  for i = 0 to n - 1 do Cstruct.set_uint8 c i (f i land 255) done;
  c

let listed () =
  channel () >>= fun c ->
  (Nbd_unix.list c >|= function
   | Ok names -> say "exports: %s" (String.concat "," names)
   | Error `Policy -> say "policy"
   | Error `Unsupported -> say "unsupported")
  >>= fun () ->
  (* The channel is as good as before. *)
  Nbd_unix.negotiate c "" >>= fun (disk, size, flags) ->
  say "%Ld bytes, %s" size
    (String.concat " " (List.map Nbd.Protocol.PerExportFlag.to_string flags));
  Nbd_unix.disconnect disk

let read_only () =
  disk () >>= fun disk ->
  Nbd_unix.get_info disk >>= fun info ->
  Nbd_unix.write disk 0L [ Cstruct.create 512 ] >>= fun r ->
  say "%b, %s" info.read_write (told r);
  read disk 0L [ Cstruct.create 512 ] >>= fun r ->
  say "%s" (told r);
  Nbd_unix.disconnect disk

(* 10,000 buffers in one request, read back in one piece and in odd ones. *)
let many_buffers () =
  disk () >>= fun disk ->
  let n = 10_000 in
  Nbd_unix.get_info disk >>= fun info ->
  assert (info.sector_size = 512);
  let whole = filled ((n + 1) * 512) (fun i -> (i / 512) + (i * 7)) in
  (* In an order of their own in memory: what is sent is not one piece. *)
  let buffers = List.init n (fun i -> Cstruct.sub whole (i * 512) 512) in
  let reversed = List.rev buffers in
  ok "write" (Nbd_unix.write disk 3L reversed) >>= fun () ->
  let back = Cstruct.create (n * 512) in
  ok "read" (read disk 3L [ back ]) >>= fun () ->
  assert (Cstruct.equal back (Cstruct.concat reversed));
  let rec pieces left i =
    if left = 0 then []
    else
      let n = min left (i mod 40) in
      Cstruct.create (n * 512) :: pieces (left - n) (i + 1)
  in
  let parts = pieces n 0 in
  ok "read" (read disk 3L parts) >>= fun () ->
  assert (Cstruct.equal (Cstruct.concat parts) back);
  Nbd_unix.disconnect disk

(* More than fits one request, without a copy on OCaml's heap. *)
let large () =
  disk () >>= fun disk ->
  let n = 100 lsl 20 in
  let data = Cstruct.create n and back = Cstruct.create n in
  for i = 0 to (n / 4096) - 1 do Cstruct.LE.set_uint64 data (i * 4096) (Int64.of_int i) done;
  let parts = [ Cstruct.sub data 0 512; Cstruct.shift data 512 ] in
  let before = Gc.allocated_bytes () in
  ok "write" (Nbd_unix.write disk 0L parts) >>= fun () ->
  ok "read" (read disk 0L [ back ]) >>= fun () ->
  assert (Gc.allocated_bytes () -. before < 1e6);
  assert (Cstruct.equal data back);
  Nbd_unix.disconnect disk

(* Each in its place, in whatever order the replies come. *)
let in_flight () =
  disk () >>= fun disk ->
  let block = 4096 in
  let one i =
    let sector = Int64.of_int (i * (block / 512)) in
    let data = filled block (fun j -> i + j) in
    ok "write" (Nbd_unix.write disk sector [ data ]) >>= fun () ->
    let back = Cstruct.create block in
    ok "read" (read disk sector [ back ]) >|= fun () -> assert (Cstruct.equal data back)
  in
  Lwt_list.iter_p one (List.init 200 Fun.id) >>= fun () -> Nbd_unix.disconnect disk

let refused_requests () =
  disk () >>= fun disk ->
  let tell what r = say "%s: %s" what (told r) in
  Nbd_unix.get_info disk >>= fun info ->
  let end_ = info.size_sectors and sector () = Cstruct.create info.sector_size in
  read disk end_ [ sector () ] >|= tell "read beyond" >>= fun () ->
  Nbd_unix.write disk (Int64.pred end_) [ sector (); sector () ] >|= tell "write beyond" >>= fun () ->
  read disk (-1L) [ sector () ] >|= tell "before" >>= fun () ->
  read disk Int64.max_int [ sector () ] >|= tell "far beyond" >>= fun () ->
  read disk 0L [ Cstruct.create 100 ] >|= tell "uneven" >>= fun () ->
  read disk 0L [] >|= tell "nothing" >>= fun () ->
  Nbd_unix.disconnect disk >>= fun () ->
  read disk 0L [ sector () ] >|= tell "afterwards" >>= fun () ->
  Nbd_unix.disconnect disk

let server_error () =
  disk () >>= fun disk ->
  read disk 0L [ Cstruct.create 512 ] >>= fun r ->
  say "%s" (told r);
  Nbd_unix.disconnect disk

(* What is in flight ends, one way or the other, and so does the connection. *)
let disconnect_in_flight () =
  disk () >>= fun disk ->
  let reads = List.init 20 (fun _ -> read disk 0L [ Cstruct.create 65536 ]) in
  Nbd_unix.disconnect disk >>= fun () ->
  Lwt.all reads >|= fun results ->
  List.iter (fun r -> if r <> Ok () then assert (r = Error `Disconnected)) results;
  say "all over"

(* The one who runs this kills the server when it reads "reading". *)
let server_killed () =
  disk () >>= fun disk ->
  let reads = List.init 20 (fun _ -> read disk 0L [ Cstruct.create 65536 ]) in
  say "reading";
  Lwt.all reads >>= fun results ->
  say "%s" (String.concat "," (List.sort_uniq compare (List.map told results)));
  Nbd_unix.write disk 0L [ Cstruct.create 512 ] >>= fun r ->
  say "%s" (told r);
  Nbd_unix.disconnect disk

let negotiated () =
  channel () >>= fun c ->
  Lwt.catch
    (fun () -> Nbd_unix.negotiate c (more 1) >|= fun _ -> say "got it")
    (function NBD.Error (why, _) -> say "%s" why; Lwt.return_unit | e -> Lwt.fail e)
  >>= fun () -> Channel.close c >>= fun () -> Channel.close c

let some_size c =
  Nbd_unix.Client.negotiate c "" >>= fun (disk, size, _) ->
  say "%Ld" size;
  Nbd_unix.disconnect disk

let opened = function Ok c -> some_size c | Error (`Msg text) -> say "%s" text; Lwt.return_unit

let of_fd () =
  let fd = Unix.socket ~cloexec:true Unix.PF_UNIX Unix.SOCK_STREAM 0 in
  Unix.connect fd (Unix.ADDR_UNIX socket);
  Channel.of_fd fd >>= opened

let of_tcp () = Channel.of_tcp "localhost" socket >>= opened

let tls () =
  let tls = { Channel.tls with psk_file = Some (more 1); username = Some (more 2) } in
  Channel.of_unix ~tls socket >>= function
  | Ok c -> say "tls %b" (Channel.is_tls c); some_size c
  | Error (`Msg text) -> say "%s" text; Lwt.return_unit

let tests =
  [ "listed", listed; "read_only", read_only; "many_buffers", many_buffers; "large", large;
    "in_flight", in_flight; "refused_requests", refused_requests;
    "server_error", server_error; "disconnect_in_flight", disconnect_in_flight;
    "server_killed", server_killed; "negotiated", negotiated; "of_fd", of_fd;
    "of_tcp", of_tcp; "tls", tls ]

let () = Lwt_main.run ((List.assoc Sys.argv.(1) tests) ())
