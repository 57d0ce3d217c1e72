(** A handle of the library that Lwt's engine drives.  No call here waits, and none may be made
    from a callback of the handle. *)

type t

val create : NBD.t -> t
val handle : t -> NBD.t

val begin_ : t -> (NBD.t -> unit) -> unit
(** Make a call that begins something.  What it raises passes through. *)

val until : t -> (NBD.t -> bool) -> unit Lwt.t
(** Resolved once that is true; it is asked after each step of the handle. *)

val failure : t -> (string * Unix.error option) option
(** Why the connection ended. *)

val command : t -> (completion:(int ref -> int) -> NBD.t -> unit) -> int Lwt.t
(** Issue a request or an option: its errno, 0 for success.  ENOTCONN once the connection is
    over, before or while the request is in flight. *)

val close : t -> unit
(** Close the handle.  What is in flight ends with ENOTCONN. *)
