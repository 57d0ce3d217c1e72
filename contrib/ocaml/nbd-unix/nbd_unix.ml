open Lwt.Infix
module Channel = Nbd.Channel
module Protocol = Nbd.Protocol

module Mirage_block = struct
  type error = [ `Unimplemented | `Disconnected ]
  type write_error = [ error | `Is_read_only ]
  type info = { read_write : bool; sector_size : int; size_sectors : int64 }

  let text : write_error -> string = function
    | `Unimplemented -> "operation not implemented"
    | `Disconnected -> "disk is disconnected"
    | `Is_read_only -> "disk is read-only"

  let pp_error f (e : error) = Format.pp_print_string f (text (e :> write_error))
  let pp_write_error f (e : write_error) = Format.pp_print_string f (text e)
end

module type CLIENT = sig
  type error = [ Mirage_block.error | `Protocol_error of Protocol.Error.t ]

  val pp_error : Format.formatter -> error -> unit

  type write_error = [ Mirage_block.write_error | `Protocol_error of Protocol.Error.t ]

  val pp_write_error : Format.formatter -> write_error -> unit

  type t

  val disconnect : t -> unit Lwt.t
  val get_info : t -> Mirage_block.info Lwt.t
  val read : t -> int64 -> Cstruct.t list -> (unit, error) result Lwt.t
  val write : t -> int64 -> Cstruct.t list -> (unit, write_error) result Lwt.t

  type size = int64

  val list : Channel.channel -> (string list, [ `Policy | `Unsupported ]) result Lwt.t

  val negotiate :
    Channel.channel -> string -> (t * size * Protocol.PerExportFlag.t list) Lwt.t
end

module Client = struct
  type error = [ Mirage_block.error | `Protocol_error of Protocol.Error.t ]
  type write_error = [ Mirage_block.write_error | `Protocol_error of Protocol.Error.t ]
  type size = int64

  let pp_write_error f : write_error -> unit = function
    | `Protocol_error e ->
      Format.fprintf f "the server failed the request: %s" (Protocol.Error.to_string e)
    | #Mirage_block.write_error as e -> Mirage_block.pp_write_error f e

  let pp_error f (e : error) = pp_write_error f (e :> write_error)

  type t = {
    loop : Nbd_loop.t;
    info : Mirage_block.info;
    size : size;
    payload : int;  (** the most bytes of one request, whole sectors *)
    mutable disconnected : unit Lwt.t option;
  }

  (* Replies to options, "Option reply types". *)
  let rep_err n = Int64.add 0x8000_0000L (Int64.of_int n)
  let rep_err_unsup = rep_err 1
  let rep_err_policy = rep_err 2

  let replies =
    [ rep_err_unsup, "it does not know the option"; rep_err_policy, "its policy forbids it";
      rep_err 3, "the request is invalid"; rep_err 5, "it demands TLS";
      rep_err 6, "it has no such export"; rep_err 7, "it is shutting down";
      rep_err 8, "it demands that its block sizes are kept"; rep_err 9, "the name is too long" ]

  let raise_refused loop what errno =
    let reply = NBDD.get_option_reply (Nbd_loop.handle loop) in
    let why =
      match Nbd_loop.failure loop, List.assoc_opt reply replies with
      | Some (text, _), _ -> text
      | None, Some text -> "the server refused: " ^ text
      | None, None -> Printf.sprintf "the server refused with reply 0x%Lx" reply
    in
    let errno = if errno = 0 then None else Some (NBD.unix_error_of_errno errno) in
    Lwt.fail (NBD.Error (Printf.sprintf "nbd-unix: %s: %s" what why, errno))

  let check_free channel what =
    if Channel.taken channel then
      Lwt.fail (NBD.Error ("nbd-unix: " ^ what ^ ": the channel is in use or closed", None))
    else Lwt.return_unit

  let list channel =
    check_free channel "list" >>= fun () ->
    let loop = Channel.loop channel in
    let names = ref [] in
    let each name _ = names := name :: !names; 0 in
    if not (NBD.aio_is_negotiating (Nbd_loop.handle loop)) then
      (* An oldstyle server: there are no options. *)
      Lwt.return (Error `Unsupported)
    else
      Nbd_loop.command loop (fun ~completion h -> NBD.aio_opt_list ~completion h each)
      >>= function
      | 0 -> Lwt.return (Ok (List.rev !names))
      | errno ->
        let h = Nbd_loop.handle loop in
        let reply = NBDD.get_option_reply h in
        if not (NBD.aio_is_negotiating h) then raise_refused loop "list" errno
        else if reply = rep_err_policy then Lwt.return (Error `Policy)
        else if reply = rep_err_unsup || NBD.get_protocol h <> "newstyle-fixed" then
          Lwt.return (Error `Unsupported)
        else raise_refused loop "list" errno

  let sector_default = 512

  (* A whole number of sectors makes the size, and a sector is no less than the server's
     smallest block. *)
  let sector_size h size =
    let minimum = max 1 (Int64.to_int (NBD.get_block_size h NBD.SIZE.MINIMUM)) in
    let fits n = Int64.rem size (Int64.of_int n) = 0L in
    let wanted = max sector_default minimum in
    if fits wanted then wanted else if fits minimum then minimum else 1

  let payload_max = 32 lsl 20

  let payload_of h sector =
    let n =
      match Int64.to_int (NBD.get_block_size h NBD.SIZE.PAYLOAD) with
      | n when n > 0 -> n
      | _ -> payload_max
    in
    max sector (n - (n mod sector))

  let disk loop =
    let h = Nbd_loop.handle loop in
    let size = NBD.get_size h in
    let sector_size = sector_size h size in
    let info =
      { Mirage_block.read_write = not (NBD.is_read_only h);
        sector_size;
        size_sectors = Int64.div size (Int64.of_int sector_size) }
    in
    let t = { loop; info; size; payload = payload_of h sector_size; disconnected = None } in
    t, size, Protocol.PerExportFlag.of_bits (NBDD.get_transmission_flags h)

  let negotiate channel name =
    check_free channel "negotiate" >>= fun () ->
    let loop = Channel.loop channel in
    let h = Nbd_loop.handle loop in
    let go () =
      NBD.set_export_name h name;
      Nbd_loop.command loop (fun ~completion h -> NBD.aio_opt_go ~completion h)
    in
    (if NBD.aio_is_negotiating h then go () else Lwt.return 0) >>= function
    | 0 ->
      Channel.take channel;
      Lwt.return (disk loop)
    | errno -> raise_refused loop (Printf.sprintf "negotiate: export %S" name) errno

  let get_info t = Lwt.return t.info

  (* [f offset slices] for each part of the buffers that fits one request. *)
  let parts t offset buffers f =
    let rec go offset room slices done_ = function
      | [] -> List.rev (if slices = [] then done_ else f offset (List.rev slices) :: done_)
      | b :: rest when Cstruct.length b = 0 -> go offset room slices done_ rest
      | b :: rest ->
        let n = min room (Cstruct.length b) in
        let slice = { NBDD.buffer = b.Cstruct.buffer; off = b.Cstruct.off; len = n } in
        let slices = slice :: slices in
        let rest = if n < Cstruct.length b then Cstruct.shift b n :: rest else rest in
        if n < room then go offset (room - n) slices done_ rest
        else
          let next = Int64.add offset (Int64.of_int t.payload) in
          go next t.payload [] (f offset (List.rev slices) :: done_) rest
    in
    go offset t.payload [] [] buffers

  let einval = NBD.errno_of_unix_error Unix.EINVAL
  let enotconn = NBD.errno_of_unix_error Unix.ENOTCONN

  (* Where a request begins, if it can be made at all. *)
  let offset_of t sector buffers ~beyond =
    let size = Int64.of_int t.info.sector_size in
    let uneven b = Cstruct.length b mod t.info.sector_size <> 0 in
    let total = List.fold_left (fun n b -> n + Cstruct.length b) 0 buffers in
    let sectors = Int64.of_int (total / t.info.sector_size) in
    if sector < 0L || List.exists uneven buffers then Error einval
    else if
      sector > t.info.size_sectors || sectors > Int64.sub t.info.size_sectors sector
    then Error beyond
    else Ok (Int64.mul sector size)

  (* The errno of the first part that failed, when all are over: until then the server may
     fill the buffers. *)
  let transfer t sector buffers ~beyond issue =
    if t.disconnected <> None then Lwt.return enotconn
    else
      match offset_of t sector buffers ~beyond with
      | Error errno -> Lwt.return errno
      | Ok offset ->
        let part offset slices =
          Nbd_loop.command t.loop (fun ~completion h ->
              ignore (issue ~completion h slices offset : NBD.cookie))
        in
        Lwt_list.fold_left_s
          (fun first p -> p >|= fun errno -> if first = 0 then errno else first)
          0
          (parts t offset buffers part)

  let eshutdown = NBD.errno_of_unix_error Unix.ESHUTDOWN

  (* A server that was told of the end may say so of what it had not done yet. *)
  let result t = function
    | 0 -> Ok ()
    | n when n = enotconn || (n = eshutdown && t.disconnected <> None) -> Error `Disconnected
    | n -> Error (`Protocol_error (Protocol.Error.of_errno n))

  let read t sector buffers =
    transfer t sector buffers ~beyond:einval (fun ~completion h slices offset ->
        NBDD.aio_preadv ~completion h slices offset)
    >|= result t

  let enospc = NBD.errno_of_unix_error Unix.ENOSPC

  let write t sector buffers =
    if t.disconnected = None && not t.info.read_write then Lwt.return (Error `Is_read_only)
    else
      transfer t sector buffers ~beyond:enospc (fun ~completion h slices offset ->
          NBDD.aio_pwritev ~completion h slices offset)
      >|= result t

  (* How long a server may take to hang up. *)
  let patience = 10.

  let disconnect t =
    match t.disconnected with
    | Some over -> over
    | None ->
      let over, resolver = Lwt.wait () in
      t.disconnected <- Some over;
      let ended h = NBD.aio_is_closed h || NBD.aio_is_dead h in
      (try
         Nbd_loop.begin_ t.loop (fun h -> if not (ended h) then NBD.aio_disconnect h)
       with NBD.Error _ -> ());
      Lwt.pick [ Nbd_loop.until t.loop ended; Lwt_unix.sleep patience ] >>= fun () ->
      Nbd_loop.close t.loop;
      Lwt.wakeup_later resolver ();
      over
end

include Client
