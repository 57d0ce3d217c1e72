(* sum URI: the sum of all bytes, read a megabyte at a time in the order of the replies. *)

let piece = 1 lsl 20

let add sum buffer =
  let bytes = NBD.Buffer.to_bytes buffer in
  Bytes.iter (fun c -> sum := !sum + Char.code c) bytes

let () =
  NBD.with_handle (fun h ->
      NBD.set_uri_allow_transports h [ NBD.ALLOW_TRANSPORT.UNIX; NBD.ALLOW_TRANSPORT.TCP ];
      NBD.connect_uri h Sys.argv.(1);
      let size = Int64.to_int (NBD.get_size h) and sum = ref 0 in
      let rec issue offset =
        if offset < size then begin
          let buffer = NBD.Buffer.alloc (min piece (size - offset)) in
          let completion error =
            if !error = 0 then add sum buffer;
            0 (* for aio_command_completed *)
          in
          let cookie = NBD.aio_pread h buffer (Int64.of_int offset) ~completion in
          cookie :: issue (offset + piece)
        end
        else []
      in
      let rec wait = function
        | [] -> ()
        | cookie :: rest when NBD.aio_command_completed h cookie -> wait rest
        | cookies -> ignore (NBD.poll h (-1)); wait cookies
      in
      wait (issue 0);
      Printf.printf "%d bytes, sum %d\n" size !sum)
