(* speed.ml [-s SECONDS] MODE URI: what nbdbench of tests/bench measures, from OCaml.  The modes
   are 64 reads or writes in flight. *)

let depth = 64
let places = 1 lsl 30

type mode = { name : string; size : int; write : bool }

let modes =
  [ { name = "r4k_qd64"; size = 4096; write = false };
    { name = "w4k_qd64"; size = 4096; write = true } ]

let cpu () =
  let t = Unix.times () in
  t.Unix.tms_utime +. t.Unix.tms_stime

let measure mode seconds uri =
  NBD.with_handle (fun h ->
      NBD.connect_uri h uri;
      let issued = ref 0 and finished = ref 0 in
      let idle = Stack.create () in
      for _ = 1 to depth do Stack.push (NBD.Buffer.of_bytes (Bytes.make mode.size 'x')) idle done;
      let issue buffer =
        let completion error =
          if !error <> 0 then failwith "operation failed";
          incr finished;
          Stack.push buffer idle;
          1
        in
        let offset = Int64.of_int (!issued * mode.size mod places) in
        incr issued;
        ignore
          (if mode.write then NBD.aio_pwrite h buffer offset ~completion
           else NBD.aio_pread h buffer offset ~completion
            : NBD.cookie)
      in
      let began = Unix.gettimeofday () and used = cpu () in
      while Unix.gettimeofday () < began +. seconds do
        while not (Stack.is_empty idle) do issue (Stack.pop idle) done;
        ignore (NBD.poll h (-1) : int)
      done;
      while !finished < !issued do ignore (NBD.poll h (-1) : int) done;
      let per x = x *. 1e9 /. float_of_int !finished in
      Printf.printf "{\"mode\": \"%s\", \"ops\": %d, \"ops_s\": %.0f, \"cpu_ns\": %.1f}\n"
        mode.name !finished
        (1e9 /. per (Unix.gettimeofday () -. began))
        (per (cpu () -. used));
      NBD.shutdown h)

let () =
  match List.tl (Array.to_list Sys.argv) with
  | [ "-l" ] -> List.iter (fun m -> print_endline m.name) modes
  | [ "-s"; seconds; mode; uri ] ->
    measure (List.find (fun m -> m.name = mode) modes) (float_of_string seconds) uri
  | _ -> prerr_endline "usage: speed [-s SECONDS] MODE URI | -l"; exit 2
