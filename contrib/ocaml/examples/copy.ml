(* copy SOURCE TARGET: copy an export to another with many requests in flight.

   Each block is read from the source and, when it is there, written to the target; the one
   buffer serves both. *)

let block = 65536
let in_flight_max = 64

type copy = {
  source : NBD.t;
  target : NBD.t;
  size : int64;
  mutable next : int64;  (** where to read *)
  mutable under_way : int;
  mutable write : (NBD.Buffer.t * int64) list;  (** read, to be written *)
}

let check what error = if !error <> 0 then failwith (Printf.sprintf "%s: errno %d" what !error)

(* A callback must not use its own handle; here it would not, but the one of the other side may
   be in a callback, too, in a program with threads.  So the writes are begun outside. *)
let was_read copy buffer offset error =
  check "read" error;
  copy.write <- (buffer, offset) :: copy.write;
  1

let was_written copy error =
  check "write" error;
  copy.under_way <- copy.under_way - 1;
  1

let begin_reads copy =
  while copy.next < copy.size && copy.under_way < in_flight_max do
    let offset = copy.next in
    let n = Int64.to_int (min (Int64.of_int block) (Int64.sub copy.size offset)) in
    let buffer = NBD.Buffer.alloc n in
    copy.next <- Int64.add offset (Int64.of_int n);
    copy.under_way <- copy.under_way + 1;
    ignore (NBD.aio_pread copy.source buffer offset ~completion:(was_read copy buffer offset))
  done

let begin_writes copy =
  let ready = copy.write in
  copy.write <- [];
  List.iter
    (fun (buffer, offset) ->
      ignore (NBD.aio_pwrite copy.target buffer offset ~completion:(was_written copy)))
    ready

(* Wait for either side. *)
let wait copy =
  let wants bit h = NBD.aio_get_direction h land Int32.to_int bit <> 0 in
  let both = [ copy.source; copy.target ] in
  let fds bit = List.map NBD.aio_get_fd (List.filter (wants bit) both) in
  let r, w, _ =
    Unix.select (fds NBD.aio_direction_read) (fds NBD.aio_direction_write) [] (-1.)
  in
  List.iter
    (fun h ->
      let fd = NBD.aio_get_fd h in
      if List.mem fd r then NBD.aio_notify_read h
      else if List.mem fd w && wants NBD.aio_direction_write h then NBD.aio_notify_write h)
    both

let rec go copy =
  begin_reads copy;
  begin_writes copy;
  if copy.under_way > 0 then begin
    wait copy;
    go copy
  end

let () =
  NBD.with_handle (fun source ->
      NBD.with_handle (fun target ->
          NBD.connect_uri source Sys.argv.(1);
          NBD.connect_uri target Sys.argv.(2);
          let size = NBD.get_size source in
          if NBD.get_size target < size then failwith "the target is too small";
          go { source; target; size; next = 0L; under_way = 0; write = [] };
          NBD.flush target;
          List.iter (fun h -> NBD.shutdown h) [ source; target ];
          Printf.printf "%Ld bytes\n" size))
