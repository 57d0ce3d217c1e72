(** Disks of NBD servers, for Lwt.

    A channel ({!Nbd.Channel}) is connected to a server; {!list} tells its exports,
    {!negotiate} turns it into a disk.  Any number of requests may be in flight on one disk.
    Errors of requests are values; {!negotiate} and {!list} raise {!NBD.Error} when the server
    does not answer as it should or the connection breaks.

    The interface is that of a block device of Mirage; {!Mirage_block} has its types, for
    programs that do without that library. *)

module Mirage_block : sig
  type error = [ `Unimplemented | `Disconnected ]
  type write_error = [ error | `Is_read_only ]
  type info = { read_write : bool; sector_size : int; size_sectors : int64 }

  val pp_error : Format.formatter -> error -> unit
  val pp_write_error : Format.formatter -> write_error -> unit
end

module type CLIENT = sig
  type error = [ Mirage_block.error | `Protocol_error of Nbd.Protocol.Error.t ]

  val pp_error : Format.formatter -> error -> unit

  type write_error = [ Mirage_block.write_error | `Protocol_error of Nbd.Protocol.Error.t ]

  val pp_write_error : Format.formatter -> write_error -> unit

  type t
  (** A disk. *)

  val disconnect : t -> unit Lwt.t
  (** End the connection.  Requests in flight may still succeed, else they end with
      [`Disconnected], as all later ones do.  A server that has not hung up after ten seconds
      is hung up on. *)

  val get_info : t -> Mirage_block.info Lwt.t
  (** Sectors have 512 bytes, or more if the server's smallest block is larger, or as few as
      it takes for the size to be a whole number of them. *)

  val read : t -> int64 -> Cstruct.t list -> (unit, error) result Lwt.t
  (** [read t sector buffers] fills the buffers, one after the other, from [sector] on.  Each
      is a whole number of sectors long; they may be of any number.  The data is received into
      them, without a copy.  More than the server takes in one request is asked for in
      several, at once.  After an error some of the buffers may not be filled. *)

  val write : t -> int64 -> Cstruct.t list -> (unit, write_error) result Lwt.t
  (** [write t sector buffers] writes what is in the buffers, in the same manner.  They are
      sent as they are and must not be changed until the request is over. *)

  type size = int64
  (** Of a disk, in bytes. *)

  val list : Nbd.Channel.channel -> (string list, [ `Policy | `Unsupported ]) result Lwt.t
  (** The exports of the server.  [`Policy]: it does not want to tell.  [`Unsupported]: it is
      too old to know how.  Afterwards the channel can be used as before. *)

  val negotiate :
    Nbd.Channel.channel -> string -> (t * size * Nbd.Protocol.PerExportFlag.t list) Lwt.t
  (** Use the export of that name.  If the server refuses, {!NBD.Error} tells why, and another
      name may be tried. *)
end

include CLIENT

module Client : CLIENT with type t = t
