//go:build wasip1

// A model with an optional input: y = x * factor. Run by projects.py.
package main

import (
	"hostler"
	"hostler/optionalmodel"
)

// Scale implements hostler.OptionalModel.
type Scale struct{}

func init() { optionalmodel.Export(Scale{}) }

func main() {}

// Metadata has shapes of several ranks.
func (Scale) Metadata() hostler.Metadata {
	return hostler.Metadata{
		Inputs:  []hostler.TensorSpec{hostler.Spec("x", hostler.FP32, -1, 2), hostler.Spec("factor", hostler.FP64)},
		Outputs: []hostler.TensorSpec{hostler.Spec("y", hostler.FP32, -1, 2)},
	}
}

// OptionalInputs names the factor.
func (Scale) OptionalInputs() []string {
	return []string{"factor"}
}

// Predict multiplies by 2 without a factor.
func (Scale) Predict(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
	factor := []float64{2}
	if len(inputs) == 2 {
		tensor, err := hostler.Named(inputs, "factor")
		if err != nil {
			return nil, err
		}
		if factor, err = hostler.Elements[float64](tensor); err != nil {
			return nil, err
		}
	}
	x, err := hostler.Named(inputs, "x")
	if err != nil {
		return nil, err
	}
	elements, err := hostler.Elements[float32](x)
	if err != nil {
		return nil, err
	}
	for i := range elements {
		elements[i] *= float32(factor[0])
	}
	y, err := hostler.NewTensor("y", x.Shape(), elements)
	if err != nil {
		return nil, err
	}
	return []*hostler.Tensor{y}, nil
}
