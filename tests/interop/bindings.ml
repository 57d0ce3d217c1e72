(* bindings.ml SOCKET: the distribution's OCaml bindings.  The server has 8 MiB. *)

let size = Int64.of_int (8 lsl 20)

let connected ?(contexts = []) path =
  let h = NBD.create () in
  List.iter (NBD.add_meta_context h) contexts;
  NBD.connect_unix h path;
  h

let every_command path =
  let h = connected path in
  assert (NBD.get_size h = size);
  let data = Bytes.init 4096 (fun i -> Char.chr (i land 255)) in
  NBD.pwrite h data 512L ~flags:[NBD.CMD_FLAG.FUA];
  NBD.flush h;
  let back = Bytes.create 4096 in
  NBD.pread h back 512L;
  assert (back = data);
  NBD.zero h 512L 512L;
  NBD.trim h 512L 1024L;
  NBD.cache h 4096L 0L;
  NBD.pread h back 512L;
  assert (Bytes.sub back 0 512 = Bytes.make 512 '\000');
  NBD.shutdown h;
  assert (NBD.aio_is_closed h);
  NBD.close h

let options path =
  let h = NBD.create () in
  NBD.set_opt_mode h true;
  NBD.connect_unix h path;
  let names = ref [] in
  let n = NBD.opt_list h (fun name _ -> names := name :: !names; 0) in
  assert (n = 1 && !names = [""]);
  NBD.add_meta_context h "base:allocation";
  NBD.opt_go h;
  assert (NBD.can_meta_context h "base:allocation");
  let extents = ref 0 in
  NBD.block_status h 65536L 0L
    (fun _ _ entries _ -> extents := !extents + Array.length entries / 2; 0);
  assert (!extents >= 1);
  NBD.close h

let at_a_time path =
  let h = connected path in
  let finished = ref 0 in
  let buffers = Array.init 64 (fun _ -> NBD.Buffer.alloc 4096) in
  Array.iteri
    (fun i b ->
      let completion error = assert (!error = 0); incr finished; 1 in
      ignore (NBD.aio_pread h b (Int64.of_int (i * 4096)) ~completion))
    buffers;
  Gc.full_major ();
  while NBD.aio_in_flight h > 0 do
    ignore (NBD.poll h (-1))
  done;
  assert (!finished = 64);
  NBD.close h

let errors path =
  let h = connected path in
  (try
    NBD.pread h (Bytes.create 512) size;
    assert false
  with NBD.Error (text, Some error) ->
    assert (error = Unix.EINVAL);
    assert (String.sub text 0 9 = "nbd_pread"));
  NBD.close h;
  (try ignore (NBD.get_size h); assert false with NBD.Closed _ -> ())

let () =
  let path = Sys.argv.(1) in
  List.iter (fun f -> f path) [every_command; options; at_a_time; errors];
  Gc.full_major ();
  print_endline "all is well"
