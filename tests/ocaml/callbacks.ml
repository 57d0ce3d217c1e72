(* callbacks.ml NAME SOCKET: what callbacks, the collector and threads may do. *)

let kit = Sys.argv.(2)

let connected () =
  let h = NBD.create () in
  NBD.add_meta_context h NBD.context_base_allocation;
  NBD.connect_unix h kit;
  h

let with_connected f =
  let h = connected () in
  Fun.protect ~finally:(fun () -> NBD.close h) (fun () -> f h)

let until h condition = while not (condition ()) do ignore (NBD.poll h (-1)) done

let errno_of f =
  match f () with
  | _ -> 0
  | exception NBD.Error (_, Some e) -> NBD.errno_of_unix_error e
  | exception NBD.Error (_, None) -> -1

let eproto = 71 and eio = 5
let open_files () = Array.length (Sys.readdir "/proc/self/fd")

(* Each on standard error; the command fails with EPROTO unless the callback said why. *)
let exceptions () =
  let expect errno f = assert (with_connected (fun h -> errno_of (fun () -> f h)) = errno) in
  let buffer () = Bytes.create 512 in
  expect eproto (fun h -> NBD.pread_structured h (buffer ()) 0L (fun _ _ _ _ -> raise Not_found));
  expect eproto (fun h -> NBD.pread_structured h (buffer ()) 0L (fun _ _ _ _ -> -1));
  expect eio (fun h ->
      NBD.pread_structured h (buffer ()) 0L (fun _ _ _ e -> e := eio; failwith "with errno"));
  expect eproto (fun h -> NBD.block_status h 512L 0L (fun _ _ _ _ -> failwith "extent"));
  expect eproto (fun h -> NBD.block_status_64 h 512L 0L (fun _ _ _ _ -> failwith "extent64"));
  expect 0 (fun h -> NBD.set_debug_callback h (fun _ _ -> failwith "debug"); NBD.set_debug h true);
  expect eio (fun h ->
      let completion e = e := eio; failwith "completion" in
      let cookie = NBD.aio_pread h (NBD.Buffer.alloc 512) 0L ~completion in
      until h (fun () -> NBD.aio_command_completed h cookie));
  let negotiating f =
    NBD.with_handle (fun h ->
        NBD.set_opt_mode h true;
        NBD.connect_unix h kit;
        f h)
  in
  negotiating (fun h -> ignore (NBD.opt_list h (fun _ _ -> failwith "list")));
  negotiating (fun h -> ignore (NBD.opt_list_meta_context h (fun _ -> failwith "context")));
  assert (Printexc.to_string (NBD.Error ("text", None)) = "NBD.Error(\"text\")")

(* A callback may close its own handle: that happens when the call is over. *)
let close_within () =
  let before = open_files () in
  let h = connected () in
  let called = ref false in
  let completion _ =
    NBD.close h;
    (match NBD.get_size h with
     | _ -> assert false
     | exception NBD.Closed _ -> called := true);
    1
  in
  ignore (NBD.aio_flush h ~completion);
  (try until h (fun () -> !called) with NBD.Closed _ -> ());
  assert !called;
  assert (open_files () = before)

(* Nobody closes these: the collector does, soon enough, and callbacks go with them. *)
let collected () =
  let before = open_files () in
  for _ = 1 to 400 do
    let h = connected () in
    NBD.set_debug_callback h (fun _ _ -> 0);
    ignore (NBD.aio_pread h (NBD.Buffer.alloc 4096) 0L ~completion:(fun _ -> 1))
  done;
  Gc.full_major ();
  Gc.full_major ();
  assert (open_files () = before)

(* Buffers and closures live as long as their request, and no longer. *)
let kept () =
  with_connected (fun h ->
      let n = 32 in
      let buffers = Weak.create n and closures = Weak.create n in
      let right = ref 0 in
      NBD.pwrite h (Bytes.make 4096 'k') 0L;
      for i = 0 to n - 1 do
        let buffer = NBD.Buffer.alloc 4096 in
        let completion error =
          if !error = 0 && Bytes.get (NBD.Buffer.to_bytes buffer) (i * 7) = 'k' then incr right;
          1
        in
        Weak.set buffers i (Some buffer);
        Weak.set closures i (Some completion);
        ignore (NBD.aio_pread h buffer 0L ~completion)
      done;
      let alive weak = List.length (List.filter (Weak.check weak) (List.init n Fun.id)) in
      Gc.compact ();
      assert (alive buffers = n && alive closures = n);
      until h (fun () -> NBD.aio_in_flight h = 0);
      assert (!right = n);
      Gc.compact ();
      assert (alive buffers = 0 && alive closures = 0);
      (* Without a completion the buffer alone is kept. *)
      let cookie = NBD.aio_pread h (NBD.Buffer.alloc 4096) 0L in
      Gc.compact ();
      until h (fun () -> NBD.aio_command_completed h cookie);
      (* A call that fails at once frees what it was given. *)
      let weak = Weak.create 1 in
      (let buffer = NBD.Buffer.alloc 4096 in
       Weak.set weak 0 (Some buffer);
       match NBD.aio_pread h buffer Int64.max_int ~completion:(fun _ -> 1) with
       | _ -> assert false
       | exception NBD.Error _ -> ());
      Gc.compact ();
      assert (not (Weak.check weak 0)))

(* SOCKET's reads take a while: other threads of OCaml run meanwhile, also on this handle. *)
let threads () =
  with_connected (fun h ->
      let ticks = ref 0 and over = ref false in
      let ticker = Thread.create (fun () -> while not !over do incr ticks; Thread.yield () done) () in
      NBD.pread h (Bytes.create 512) 0L;
      let seen = !ticks in
      let read i =
        let data = Bytes.create 512 in
        let total = ref 0 in
        NBD.pread_structured h data (Int64.of_int (i * 512)) (fun piece _ _ _ ->
            total := !total + Bytes.length piece;
            Thread.yield ();
            Gc.minor ();
            0);
        assert (!total = 512)
      in
      let began = Unix.gettimeofday () in
      List.iter Thread.join (List.init 8 (fun i -> Thread.create read i));
      let took = Unix.gettimeofday () -. began in
      over := true;
      Thread.join ticker;
      assert (seen > 100);
      (* Eight reads of a quarter of a second each, at once. *)
      assert (took < 1.5))

(* A handle that one thread waits on may be closed by another. *)
let close_across () =
  let h = connected () in
  let polling = ref true in
  let waiter () =
    match while true do polling := true; ignore (NBD.poll h 50) done with
    | () -> assert false
    | exception NBD.Closed _ -> polling := false
  in
  let thread = Thread.create waiter () in
  Thread.yield ();
  NBD.close h;
  Thread.join thread;
  assert (not !polling)

exception Alarm

(* A signal's exception comes between two calls, and leaves the handle as it was. *)
let signals () =
  with_connected (fun h ->
      let armed = ref false in
      Sys.set_signal Sys.sigalrm (Sys.Signal_handle (fun _ -> if !armed then raise Alarm));
      ignore (Unix.setitimer Unix.ITIMER_REAL { Unix.it_interval = 0.01; it_value = 0.01 });
      let alarms = ref 0 in
      while !alarms < 5 do
        armed := true;
        match NBD.pread h (Bytes.create 65536) 0L with
        | () -> armed := false
        | exception Alarm -> armed := false; incr alarms
      done;
      ignore (Unix.setitimer Unix.ITIMER_REAL { Unix.it_interval = 0.; it_value = 0. });
      NBD.shutdown h)

let tests =
  [ "exceptions", exceptions; "close_within", close_within; "collected", collected;
    "kept", kept; "threads", threads; "close_across", close_across; "signals", signals ]

let () = (List.assoc Sys.argv.(1) tests) ()
