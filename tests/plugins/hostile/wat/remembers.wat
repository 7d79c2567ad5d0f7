;; Differs between calls where its instance is reused: every second call returns no output instead
;; of its input `x`.
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
    (export "error" (type (eq $error')))
    (type $spec' (record (field "name" string) (field "datatype" $datatype) (field "shape" (list s64))))
    (export "tensor-spec" (type $spec (eq $spec')))
    (type $metadata' (record (field "inputs" (list $spec)) (field "outputs" (list $spec))))
    (export "model-metadata" (type (eq $metadata')))
  ))
  (alias export $types "tensor" (type $tensor))
  (alias export $types "request" (type $request))
  (alias export $types "error" (type $error))
  (alias export $types "model-metadata" (type $metadata))
  (core func $drop-request (canon resource.drop $request))
  (core module $code
    (import "host" "drop-request" (func $drop-request (param i32)))
    (memory (export "memory") 1)
    ;; Memory is allocated upwards and never freed.
    (global $free (mut i32) (i32.const 1024))
    (global $calls (mut i32) (i32.const 0))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (local.get $size))))
    ;; Input and output: one spec each, at 16. Name "x" at 40, FP32, shape [-1] at 48.
    (data (i32.const 0) "\10\00\00\00\01\00\00\00" "\10\00\00\00\01\00\00\00")
    (data (i32.const 16) "\28\00\00\00\01\00\00\00" "\0b\00\00\00" "\30\00\00\00\01\00\00\00")
    (data (i32.const 40) "x")
    (data (i32.const 48) "\ff\ff\ff\ff\ff\ff\ff\ff")
    (func (export "metadata") (result i32) (i32.const 0))
    ;; The result at 64: ok (0 at 64), and the list of inputs, which is empty in every second call.
    (func (export "predict") (param $request i32) (param $inputs i32) (param $count i32) (result i32)
      (call $drop-request (local.get $request))
      (i32.store (i32.const 68) (local.get $inputs))
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (i32.store (i32.const 72)
        (select (local.get $count) (i32.const 0) (i32.and (global.get $calls) (i32.const 1))))
      (i32.const 64)))
  (core instance $code (instantiate $code
    (with "host" (instance (export "drop-request" (func $drop-request))))))
  (func $metadata (result $metadata)
    (canon lift (core func $code "metadata") (memory (core memory $code "memory")) (realloc (core func $code "realloc"))))
  (func $predict (param "request" (own $request)) (param "inputs" (list (own $tensor)))
    (result (result (list (own $tensor)) (error $error)))
    (canon lift (core func $code "predict") (memory (core memory $code "memory")) (realloc (core func $code "realloc"))))
  (instance $model (export "metadata" (func $metadata)) (export "predict" (func $predict)))
  (export "hostler:plugin/model@0.1.0" (instance $model))
)
