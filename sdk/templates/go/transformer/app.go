// Turns `{"value": 41}` into the input of the model, and its output into `{"answer": 42}`.
package main

import (
	"encoding/json"
	"hostler"
	"hostler/transformer"
)

// Number implements hostler.Transformer.
type Number struct{}

func init() { transformer.Export(Number{}) }

// A component has no main function: the host calls the functions of the role.
func main() {}

func (Number) Preprocess(request *hostler.Request, input hostler.Payload) ([]*hostler.Tensor, error) {
	text, isJSON := input.(hostler.JSON)
	if !isJSON {
		return nil, hostler.NewError(hostler.Unsupported, "send JSON")
	}
	var fields struct {
		Value *float32 `json:"value"`
	}
	if err := json.Unmarshal(text, &fields); err != nil || fields.Value == nil {
		return nil, hostler.Invalid("value", "expected a number")
	}
	x, err := hostler.NewTensor("x", []int64{1}, []float32{*fields.Value})
	if err != nil {
		return nil, err
	}
	return []*hostler.Tensor{x}, nil
}

func (Number) Postprocess(request *hostler.Request, outputs []*hostler.Tensor) (hostler.Payload, error) {
	y, err := hostler.Named(outputs, "y")
	if err != nil {
		return nil, err
	}
	elements, err := hostler.Elements[float32](y)
	if err != nil {
		return nil, err
	}
	answer, err := json.Marshal(map[string]float32{"answer": elements[0]})
	if err != nil {
		return nil, err
	}
	return hostler.JSON(answer), nil
}
