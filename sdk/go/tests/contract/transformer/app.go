//go:build wasip1

// A transformer that takes and returns every kind of payload. Run by projects.py.
package main

import (
	"hostler"
	"hostler/transformer"
	"strconv"
)

// Kinds implements hostler.MetadataTransformer.
type Kinds struct{}

func init() { transformer.Export(Kinds{}) }

func main() {}

// Metadata names the tensors of the model differently.
func (Kinds) Metadata() *hostler.Metadata {
	return &hostler.Metadata{
		Inputs:  []hostler.TensorSpec{hostler.Spec("numbers", hostler.FP32, -1)},
		Outputs: []hostler.TensorSpec{hostler.Spec("results", hostler.FP32, -1)},
	}
}

// Preprocess remembers the kind of the payload in the note.
func (Kinds) Preprocess(r *hostler.Request, payload hostler.Payload) ([]*hostler.Tensor, error) {
	value := float32(0)
	switch payload := payload.(type) {
	case hostler.Tensors:
		r.SetNote([]byte("tensors"))
		return []*hostler.Tensor{payload[0].Renamed("x")}, nil
	case hostler.Blob:
		r.SetNote([]byte(payload.ContentType))
		value = float32(len(payload.Data))
	case hostler.JSON:
		r.SetNote([]byte("json"))
		value = float32(len(payload))
	}
	x, err := hostler.NewTensor("x", []int64{1}, []float32{value})
	return []*hostler.Tensor{x}, err
}

// Postprocess returns a payload of the same kind.
func (Kinds) Postprocess(r *hostler.Request, outputs []*hostler.Tensor) (hostler.Payload, error) {
	elements, err := hostler.Elements[float32](outputs[0])
	if err != nil {
		return nil, err
	}
	text := strconv.FormatFloat(float64(elements[0]), 'g', -1, 32)
	switch note := string(r.Note()); note {
	case "tensors":
		return hostler.Tensors{outputs[0].Renamed("results")}, nil
	case "json":
		return hostler.JSON(text), nil
	case "text/none":
		return nil, nil
	default:
		return hostler.Blob{ContentType: note, Data: []byte("length " + text)}, nil
	}
}
