;; Imports an interface that the host does not provide.
(component
  (import "other:pkg/thing@1.0.0" (instance (export "run" (func))))
  (instance $model)
  (export "hostler:plugin/model@0.1.0" (instance $model))
)
