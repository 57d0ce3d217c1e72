(* options URI NAME...: use the first of these exports that the server has. *)

let rec first h = function
  | [] -> failwith "the server has none of them"
  | name :: rest -> (
    NBD.set_export_name h name;
    match NBD.opt_go h with
    | () -> name
    | exception NBD.Error _ ->
      Printf.printf "%s: no\n" name;
      first h rest)

let () =
  NBD.with_handle (fun h ->
      NBD.set_opt_mode h true;
      NBD.add_meta_context h NBD.context_base_allocation;
      NBD.connect_uri h Sys.argv.(1);
      let _, names = List.partition (fun i -> i < 2) (List.init (Array.length Sys.argv) Fun.id) in
      let name = first h (List.map (Array.get Sys.argv) names) in
      Printf.printf "using %s, allocation %s\n" name
        (if NBD.can_meta_context h NBD.context_base_allocation then "known" else "not known");
      NBD.shutdown h)
