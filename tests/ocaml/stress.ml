(* stress.ml SOCKET ROUNDS: every kind of call with the heap compacted at each step: whatever
   the library or the stubs hold without telling the collector is moved or freed. *)

let squeeze () = Gc.compact ()
let squeezed f x = squeeze (); let r = f x in squeeze (); r

let until h condition =
  while not (condition h) do
    squeeze ();
    ignore (NBD.poll h (-1))
  done

let debug context message = squeeze (); String.length context + String.length message

let options path =
  let h = NBD.create () in
  NBD.set_debug_callback h debug;
  NBD.set_debug h true;
  NBD.set_opt_mode h true;
  NBD.connect_unix h path;
  let count = squeezed (NBD.opt_list h) (fun name text -> squeeze (); String.length (name ^ text)) in
  assert (count = 1);
  assert (NBD.opt_list_meta_context_queries h [ "base:"; "x:" ] (fun s -> squeeze (); String.length s) = 1);
  NBD.add_meta_context h (String.concat ":" [ "base"; "allocation" ]);
  let error = ref 1 in
  NBD.aio_opt_go h ~completion:(fun e -> squeeze (); error := !e; 0);
  until h (fun h -> not (NBD.aio_is_connecting h));
  assert (!error = 0);
  h

let sync h =
  let data = Bytes.init 2048 (fun i -> Char.chr (i land 255)) in
  NBD.pwrite h data 512L;
  let back = Bytes.create 2048 in
  squeezed (NBD.pread h back) 512L;
  assert (back = data);
  let pieces = Buffer.create 2048 in
  squeezed (NBD.pread_structured h back 512L) (fun piece _ _ _ ->
      squeeze ();
      Buffer.add_bytes pieces piece;
      0);
  assert (Buffer.contents pieces = Bytes.to_string data);
  let total = ref 0L in
  NBD.block_status h 65536L 0L (fun name _ entries error ->
      squeeze ();
      assert (name = "base:allocation" && !error = 0);
      Array.iteri (fun i n -> if i land 1 = 0 then total := Int64.add !total n) entries;
      0);
  NBD.block_status_64 h 65536L 0L (fun _ _ entries _ ->
      squeeze ();
      Array.iter (fun (n, _) -> total := Int64.sub !total n) entries;
      0);
  assert (!total = 0L);
  List.iter
    (fun f -> match f () with () -> assert false | exception NBD.Error (s, _) -> assert (s <> ""))
    [ (fun () -> squeezed (NBD.pread h back) Int64.max_int);
      (fun () -> NBD.pread_structured h back 0L (fun _ _ _ _ -> squeeze (); failwith "stress"));
      (fun () -> NBD.connect_tcp h "localhost" "1") ]

let aio h =
  let finished = ref 0 in
  for i = 0 to 15 do
    let offset = Int64.of_int (i * 1024) in
    let fill = Char.chr (65 + i) in
    let check buffer error =
      squeeze ();
      assert (!error = 0);
      Bytes.iter (fun c -> assert (c = fill)) (NBD.Buffer.to_bytes buffer);
      incr finished;
      1
    in
    NBD.pwrite h (Bytes.make 1024 fill) offset;
    let one = NBD.Buffer.alloc 1024 in
    ignore (NBD.aio_pread h one offset ~completion:(check one));
    squeeze ();
    let two = NBD.Buffer.alloc 1024 in
    ignore (NBD.aio_pread_structured h two offset ~completion:(check two) (fun _ _ _ _ -> squeeze (); 0));
    let parts =
      List.map
        (fun n -> { NBDD.buffer = NBDD.bigarray (NBD.Buffer.alloc n); off = 0; len = n })
        [ 24; 1000 ]
    in
    ignore (NBDD.aio_preadv h parts offset ~completion:(fun _ -> squeeze (); incr finished; 1));
    ignore (NBD.aio_pread h (NBD.Buffer.alloc 512) offset);
    squeeze ()
  done;
  until h (fun h -> NBD.aio_in_flight h = 0);
  assert (!finished = 48);
  let rec retire () =
    match NBD.aio_peek_command_completed h with
    | cookie -> assert (NBD.aio_command_completed h cookie); retire ()
    | exception NBD.Error _ -> ()
  in
  retire ()

(* Left to the collector with requests in flight. *)
let abandoned path =
  let h = NBD.create () in
  NBD.connect_unix h path;
  for _ = 1 to 8 do
    ignore (NBD.aio_pread h (NBD.Buffer.alloc 65536) 0L ~completion:(fun _ -> squeeze (); 1))
  done

let () =
  let path = Sys.argv.(1) in
  for _ = 1 to int_of_string Sys.argv.(2) do
    let h = options path in
    sync h;
    aio h;
    abandoned path;
    let u = NBDD.uri_parse "nbd://u@h:1/e?tls-hostname=x" in
    squeeze ();
    assert (u.export_name = "e" && u.tls_hostname = Some "x");
    NBD.close h
  done;
  Gc.full_major ();
  Gc.full_major ();
  print_endline "all is well"
