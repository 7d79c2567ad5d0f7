;; Exports the role `transformer` of a version that does not exist here.
(component
  (instance $transformer)
  (export "hostler:plugin/transformer@0.9.0" (instance $transformer))
)
