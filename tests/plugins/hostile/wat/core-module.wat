;; A core module, the output of `--target wasm32-unknown-unknown`, instead of a component.
(module
  (memory (export "memory") 1)
  (func (export "predict") (result i32) (i32.const 42))
)
