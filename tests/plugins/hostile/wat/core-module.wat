;; A core module, what `--target wasm32-unknown-unknown` gives, and no component.
(module
  (memory (export "memory") 1)
  (func (export "predict") (result i32) (i32.const 42))
)
