(** Channels to NBD servers, and what the protocol's numbers mean. *)

module Protocol : sig
  (** What a server says of a request that failed. *)
  module Error : sig
    type t = [ `EPERM | `EIO | `ENOMEM | `EINVAL | `ENOSPC | `Unknown of int32 ]

    val of_errno : int -> t
    val to_string : t -> string
  end

  (** What a server says of an export: its transmission flags. *)
  module PerExportFlag : sig
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

    val of_bits : int -> t list
    val to_string : t -> string
  end
end

module Channel : sig
  type channel
  (** A connection to a server that has not chosen an export yet.  It is used up by
      [negotiate], when that succeeds. *)

  (** How to prove who the server is, and who we are: nbd_set_tls_certificates(3),
      nbd_set_tls_psk_file(3), nbd_set_tls_username(3), nbd_set_tls_hostname(3).  What is [None]
      is the library's default. *)
  type tls = {
    certificates : string option;
    psk_file : string option;
    username : string option;
    hostname : string option;
    verify_peer : bool;
  }

  val tls : tls
  (** With defaults: [{ tls with certificates = Some "/etc/pki/nbd" }]. *)

  type error = [ `Msg of string ]

  val of_fd : ?tls:tls -> Unix.file_descr -> (channel, [> error ]) result Lwt.t
  (** Over a connected stream socket, which is the channel's from then on. *)

  val of_unix : ?tls:tls -> string -> (channel, [> error ]) result Lwt.t
  (** Over the Unix socket of that path. *)

  val of_tcp : ?tls:tls -> string -> string -> (channel, [> error ]) result Lwt.t
  (** [of_tcp host port]: the first address of the host that answers. *)

  val is_tls : channel -> bool

  val close : channel -> unit Lwt.t
  (** Tell the server and close the connection, if no disk uses it. *)

  (**/**)

  val loop : channel -> Nbd_loop.t
  val taken : channel -> bool
  val take : channel -> unit
end
