(* exports URI: the exports of a server, with their sizes. *)

let names h =
  let found = ref [] in
  let count = NBD.opt_list h (fun name _ -> found := name :: !found; 0) in
  assert (count = List.length !found);
  List.rev !found

let show h name =
  NBD.set_export_name h name;
  match NBD.opt_info h with
  | () -> Printf.printf "%S: %Ld bytes\n" name (NBD.get_size h)
  | exception NBD.Error (why, _) -> Printf.printf "%S: %s\n" name why

let () =
  NBD.with_handle (fun h ->
      NBD.set_opt_mode h true;
      NBD.connect_uri h Sys.argv.(1);
      List.iter (show h) (names h);
      NBD.opt_abort h)
