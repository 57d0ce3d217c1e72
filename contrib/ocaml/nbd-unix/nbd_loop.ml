open Lwt.Infix

type t = {
  handle : NBD.t;
  mutable events : Lwt_engine.event list;
  mutable watched : (Unix.file_descr * int) option;  (** with its direction *)
  mutable failure : (string * Unix.error option) option;
  mutable closed : bool;
  mutable serial : int;
  pending : (int, int Lwt.u) Hashtbl.t;
  finished : (int * int) Queue.t;  (** serial and errno, not yet told *)
  stepped : unit Lwt_condition.t;
}

let read = Int32.to_int NBD.aio_direction_read
let write = Int32.to_int NBD.aio_direction_write
let enotconn = NBD.errno_of_unix_error Unix.ENOTCONN

let create handle =
  { handle; events = []; watched = None; failure = None; closed = false; serial = 0;
    pending = Hashtbl.create 64; finished = Queue.create ();
    stepped = Lwt_condition.create () }

let handle t = t.handle
let failure t = t.failure

let finish t serial errno =
  match Hashtbl.find_opt t.pending serial with
  | None -> ()
  | Some resolver ->
    Hashtbl.remove t.pending serial;
    Lwt.wakeup_later resolver errno

(* Callbacks run with the handle locked: whoever waits is woken after them. *)
let rec deliver t =
  match Queue.take_opt t.finished with
  | None -> ()
  | Some (serial, errno) ->
    finish t serial errno;
    deliver t

let unwatch t =
  List.iter Lwt_engine.stop_event t.events;
  t.events <- [];
  t.watched <- None

let wanted t =
  if t.closed then None
  else
    match NBD.aio_get_direction t.handle with
    | 0 -> None
    | direction -> (
      match NBD.aio_get_fd t.handle with
      | fd -> Some (fd, direction)
      | exception NBD.Error _ -> None)

let rec watch t =
  let want = wanted t in
  if want <> t.watched then begin
    unwatch t;
    t.watched <- want;
    Option.iter
      (fun (fd, direction) ->
        let on wanted register call =
          if direction land wanted <> 0 then
            t.events <-
              register fd (fun (_ : Lwt_engine.event) -> step t wanted call) :: t.events
        in
        on read Lwt_engine.on_readable NBD.aio_notify_read;
        on write Lwt_engine.on_writable NBD.aio_notify_write)
      want
  end

(* The descriptor is ready: unless it was meanwhile seen to, let the library go on. *)
and step t wanted call =
  if (not t.closed) && NBD.aio_get_direction t.handle land wanted <> 0 then begin
    (* While connecting, a descriptor may be closed and its number be used anew. *)
    if NBD.aio_is_connecting t.handle then unwatch t;
    (try call t.handle
     with NBD.Error (text, errno) -> if t.failure = None then t.failure <- Some (text, errno));
    watch t;
    deliver t;
    Lwt_condition.broadcast t.stepped ()
  end

let begin_ t call =
  Fun.protect
    ~finally:(fun () -> watch t)
    (fun () -> call t.handle)

let rec until t condition =
  if t.closed || condition t.handle then Lwt.return_unit
  else Lwt_condition.wait t.stepped >>= fun () -> until t condition

let command t issue =
  if t.closed then Lwt.return enotconn
  else begin
    let serial = t.serial in
    let result, resolver = Lwt.wait () in
    t.serial <- serial + 1;
    Hashtbl.replace t.pending serial resolver;
    let completion error =
      Queue.push (serial, !error) t.finished;
      1
    in
    (match issue ~completion t.handle with
     | () ->
       watch t;
       if not (Queue.is_empty t.finished) then
         Lwt.async (fun () -> Lwt.pause () >|= fun () -> deliver t)
     | exception NBD.Error (_, errno) ->
       let gone = NBD.aio_is_dead t.handle || NBD.aio_is_closed t.handle in
       let errno =
         match errno with
         | Some e when not gone -> NBD.errno_of_unix_error e
         | _ -> enotconn
       in
       finish t serial errno);
    result
  end

let close t =
  if not t.closed then begin
    t.closed <- true;
    unwatch t;
    NBD.close t.handle;
    deliver t;
    let left = Hashtbl.fold (fun serial _ all -> serial :: all) t.pending [] in
    List.iter (fun serial -> finish t serial enotconn) (List.sort compare left);
    Lwt_condition.broadcast t.stepped ()
  end
