;; Exports the role `model` by name, but its functions are not those of the contract.
(component
  (core module $code (func (export "answer") (result i32) (i32.const 42)))
  (core instance $code (instantiate $code))
  (func $answer (result u32) (canon lift (core func $code "answer")))
  (instance $model (export "metadata" (func $answer)) (export "predict" (func $answer)))
  (export "hostler:plugin/model@0.1.0" (instance $model))
)
