(* size URI: connect, and tell what there is. *)

let () =
  NBD.with_handle (fun h ->
      NBD.connect_uri h Sys.argv.(1);
      Printf.printf "%Ld bytes, %s, %s\n" (NBD.get_size h) (NBD.get_protocol h)
        (if NBD.is_read_only h then "read-only" else "writable");
      NBD.shutdown h)
