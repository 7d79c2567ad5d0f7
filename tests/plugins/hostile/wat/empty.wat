;; A component without a role.
(component)
