// Package hostler is the SDK for plugins of Hostler in Go.
//
// A plugin has one role. It implements the interface of the role and exports it with the package of
// the same name:
//
//	package main
//
//	import (
//		"hostler"
//		"hostler/model"
//	)
//
//	type Double struct{}
//
//	func init() { model.Export(Double{}) }
//
//	func main() {}
//
//	func (Double) Metadata() hostler.Metadata {
//		return hostler.Metadata{
//			Inputs:  []hostler.TensorSpec{hostler.Spec("x", hostler.FP32, -1)},
//			Outputs: []hostler.TensorSpec{hostler.Spec("y", hostler.FP32, -1)},
//		}
//	}
//
//	func (Double) Predict(request *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
//		x, err := hostler.Elements[float32](inputs[0])
//		...
//	}
//
// # Ownership
//
// Tensors, models and calls that a function receives or creates belong to the call of the plugin.
// They are released when the function has returned. Tensors that it returns belong to the host from
// then on. [Tensor.Keep] keeps a tensor for later calls.
//
// # Tests
//
// In a component the functions of this package call the host. On every other target they call a
// stand-in of the package hostlertest, so that a plugin is tested with `go test`.
package hostler
