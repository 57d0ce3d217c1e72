(* server COMMAND...: run a server for as long as this program needs it, and write to it.
   Such as: server nbdkit -s --exit-with-parent memory 1M *)

let () =
  NBD.with_handle (fun h ->
      NBD.connect_command h (List.tl (Array.to_list Sys.argv));
      let written = Bytes.of_string (String.init 512 (fun i -> Char.chr (i land 255))) in
      NBD.pwrite h written 0L ~flags:(if NBD.can_fua h then [ NBD.CMD_FLAG.FUA ] else []);
      let read = Bytes.create 512 in
      NBD.pread h read 0L;
      Printf.printf "%s\n" (if read = written then "as written" else "not as written"))
