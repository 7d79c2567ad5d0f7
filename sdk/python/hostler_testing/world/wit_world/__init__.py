"""Stands in for the bindings that componentize-py generates from `wit/hostler.wit` and
`wit/async/concurrent.wit`. The annotations are those of the generated code: the SDK checks the
arguments of host calls against them."""
