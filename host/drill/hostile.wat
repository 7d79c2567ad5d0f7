;; A model for the drill that misbehaves in `predict`. The first element of its input selects how, by
;; the case's index in hostile.rs. The host embeds the compiled hostile.wasm. After a change here:
;; `cargo test --lib drill::hostile -- --ignored` compiles it anew.
(component
  (import "hostler:plugin/types@0.1.0" (instance $types
    (export "tensor" (type $tensor (sub resource)))
    (export "request" (type $request (sub resource)))
    (type $datatype' (enum "bool" "uint8" "uint16" "uint32" "uint64" "int8" "int16" "int32" "int64"
      "fp16" "bf16" "fp32" "fp64" "bytes"))
    (export "datatype" (type $datatype (eq $datatype')))
    (type $kind' (enum "invalid-input" "not-found" "unsupported" "too-large" "overloaded"
      "unavailable" "deadline" "cancelled" "failed"))
    (export "error-kind" (type $kind (eq $kind')))
    (type $error' (record (field "kind" $kind) (field "message" string) (field "field" (option string))))
    (export "error" (type $error (eq $error')))
    (type $spec' (record (field "name" string) (field "datatype" $datatype) (field "shape" (list s64))))
    (export "tensor-spec" (type $spec (eq $spec')))
    (type $metadata' (record (field "inputs" (list $spec)) (field "outputs" (list $spec))))
    (export "model-metadata" (type (eq $metadata')))
    (export "[static]tensor.create" (func (param "name" string) (param "datatype" $datatype)
      (param "shape" (list s64)) (param "data" (list u8)) (result (result (own $tensor) (error $error)))))
    (export "[method]tensor.read" (func (param "self" (borrow $tensor)) (param "offset" u64) (param "length" u64)
      (result (list u8))))
  ))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))
  ))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $pollable-type))
    (export "pollable" (type $timer (eq $pollable-type)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $timer))))
  ))
  (alias export $types "tensor" (type $tensor))
  (alias export $types "request" (type $request))
  (alias export $types "error" (type $error))
  (alias export $types "model-metadata" (type $metadata))

  ;; The memory is a separate module, because the imports below are lowered into it.
  (core module $memory
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 1024))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (local.get $size))))
  )
  (core instance $memory (instantiate $memory))
  (core func $create (canon lower (func $types "[static]tensor.create")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $read (canon lower (func $types "[method]tensor.read")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $timer (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))

  (core module $code
    (import "host" "memory" (memory 1))
    ;; Name, datatype, shape and data, lists as a pointer and a length; then the address of the result.
    (import "host" "create" (func $create (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "host" "read" (func $read (param i32 i64 i64 i32)))
    (import "host" "timer" (func $timer (param i64) (result i32)))
    (import "host" "block" (func $block (param i32)))
    ;; Inputs and outputs share one spec, at 16: the name "x" at 40, FP32, and the shape [-1] at 48.
    (data (i32.const 0) "\10\00\00\00\01\00\00\00" "\10\00\00\00\01\00\00\00")
    (data (i32.const 16) "\28\00\00\00\01\00\00\00" "\0b\00\00\00" "\30\00\00\00\01\00\00\00")
    (data (i32.const 40) "x")
    (data (i32.const 48) "\ff\ff\ff\ff\ff\ff\ff\ff")
    (func (export "metadata") (result i32) (i32.const 0))
    (func $recurse (param $depth i32) (result i32)
      (i32.add (call $recurse (i32.add (local.get $depth) (i32.const 1))) (local.get $depth)))
    ;; Creates a UINT8 tensor "x" of $count bytes. The shape is at 56, the result at 128: 0, and a handle
    ;; at 132.
    (func $bytes (param $count i32)
      (i64.store (i32.const 56) (i64.extend_i32_u (local.get $count)))
      (call $create (i32.const 40) (i32.const 1) (i32.const 1) (i32.const 56) (i32.const 1)
        (i32.const 4096) (local.get $count) (i32.const 128)))
    ;; Returns the first element of the first input.
    (func $number (param $inputs i32) (result i32)
      (call $read (i32.load (local.get $inputs)) (i64.const 0) (i64.const 4) (i32.const 144))
      (i32.trunc_sat_f32_s (f32.load (i32.load (i32.const 144)))))
    (func $spin (loop $again (br $again)))
    (func $take-memory
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
      (unreachable))
    (func $take-handles (loop $more (call $bytes (i32.const 0)) (br $more)))
    ;; 2 MiB, where `result_mb` is 1.
    (func $answer-too-much
      (drop (memory.grow (i32.const 40)))
      (call $bytes (i32.const 2097152)))
    ;; Returns a tensor whose datatype differs from the metadata.
    (func $answer-other-tensors
      (call $bytes (i32.const 0))
      (i32.store (i32.const 136) (i32.load (i32.const 132)))
      (i32.store (i32.const 68) (i32.const 136))
      (i32.store (i32.const 72) (i32.const 1)))
    ;; The result is at 64: a byte that is 0 for ok, then a pointer and a length.
    (func (export "predict") (param $request i32) (param $inputs i32) (param $count i32) (result i32)
      (local $case i32)
      (local.set $case (call $number (local.get $inputs)))
      (if (i32.eq (local.get $case) (i32.const 0)) (then (call $spin)))
      ;; One minute, in nanoseconds.
      (if (i32.eq (local.get $case) (i32.const 1)) (then (call $block (call $timer (i64.const 60000000000)))))
      (if (i32.eq (local.get $case) (i32.const 2)) (then (unreachable)))
      (if (i32.eq (local.get $case) (i32.const 3)) (then (drop (call $recurse (i32.const 0)))))
      (if (i32.eq (local.get $case) (i32.const 4)) (then (call $take-memory)))
      (if (i32.eq (local.get $case) (i32.const 5)) (then (call $take-handles)))
      (if (i32.eq (local.get $case) (i32.const 6)) (then (call $answer-too-much)))
      ;; The variant is neither ok nor error.
      (if (i32.eq (local.get $case) (i32.const 7)) (then (i32.store8 (i32.const 64) (i32.const 9))))
      (if (i32.eq (local.get $case) (i32.const 8)) (then (call $answer-other-tensors)))
      (i32.const 64))
  )
  (core instance $code (instantiate $code (with "host" (instance
    (export "memory" (memory $memory "memory"))
    (export "create" (func $create))
    (export "read" (func $read))
    (export "timer" (func $timer))
    (export "block" (func $block))))))
  (func $metadata (result $metadata)
    (canon lift (core func $code "metadata") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (func $predict (param "request" (own $request)) (param "inputs" (list (own $tensor)))
    (result (result (list (own $tensor)) (error $error)))
    (canon lift (core func $code "predict") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (instance $model (export "metadata" (func $metadata)) (export "predict" (func $predict)))
  (export "hostler:plugin/model@0.1.0" (instance $model))
)
