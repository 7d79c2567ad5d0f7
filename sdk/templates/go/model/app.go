// A model that doubles its input.
package main

import (
	"hostler"
	"hostler/model"
)

// Double implements hostler.Model.
type Double struct{}

func init() { model.Export(Double{}) }

// A component has no main function: the host calls the functions of the role.
func main() {}

func (Double) Metadata() hostler.Metadata {
	return hostler.Metadata{
		Inputs:  []hostler.TensorSpec{hostler.Spec("x", hostler.FP32, -1)},
		Outputs: []hostler.TensorSpec{hostler.Spec("y", hostler.FP32, -1)},
	}
}

func (Double) Predict(request *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
	x, err := hostler.Named(inputs, "x")
	if err != nil {
		return nil, err
	}
	elements, err := hostler.Elements[float32](x)
	if err != nil {
		return nil, err
	}
	for i := range elements {
		elements[i] *= 2
	}
	y, err := hostler.NewTensor("y", x.Shape(), elements)
	if err != nil {
		return nil, err
	}
	return []*hostler.Tensor{y}, nil
}
