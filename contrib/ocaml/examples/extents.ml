(* extents URI: what of an export is allocated. *)

let step = 0x8000_0000L (* bytes asked for at once *)

let text flags =
  match Int64.to_int flags with
  | 0 -> "allocated"
  | 1 -> "hole"
  | 2 -> "zero"
  | 3 -> "hole, reads as zero"
  | n -> Printf.sprintf "flags %d" n

(* One request; where the next one begins. *)
let show h size offset =
  let next = ref offset in
  let extents name start entries _ =
    if name = NBD.context_base_allocation then begin
      next := start;
      for i = 0 to (Array.length entries / 2) - 1 do
        (* The last one may go beyond what was asked for. *)
        let length = min entries.(2 * i) (Int64.sub size !next) in
        Printf.printf "%10Ld %10Ld %s\n" !next length (text entries.((2 * i) + 1));
        next := Int64.add !next length
      done
    end;
    0
  in
  NBD.block_status h (min step (Int64.sub size offset)) offset extents;
  if !next = offset then failwith "the server described nothing";
  !next

let () =
  NBD.with_handle (fun h ->
      NBD.add_meta_context h NBD.context_base_allocation;
      NBD.connect_uri h Sys.argv.(1);
      let size = NBD.get_size h in
      let rec go offset = if offset < size then go (show h size offset) in
      go 0L;
      NBD.shutdown h)
