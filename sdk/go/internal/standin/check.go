package standin

import (
	"hostler/internal/contract"
	"slices"
	"strings"
)

// CheckInputs checks the inputs of a model as the host does. optional are names of inputs that may be
// missing.
func CheckInputs(specs []contract.Spec, optional []string, inputs []uint32) *contract.Error {
	seen := map[string]bool{}
	for _, handle := range inputs {
		input := TensorOf(handle)
		spec := find(specs, input.Name)
		message := ""
		switch {
		case spec == nil:
			message = "no input \"" + input.Name + "\"; inputs: " + names(specs)
		case spec.Datatype != input.Datatype:
			message = "input \"" + input.Name + "\": expected " + spec.Datatype.String() + ", got " + input.Datatype.String()
		case !accepts(spec.Shape, input.Shape):
			message = "input \"" + input.Name + "\": expected shape " + Dimensions(spec.Shape) + ", got " + Dimensions(input.Shape)
		case seen[input.Name]:
			message = "input '" + input.Name + "' already exists in request"
		}
		if message != "" {
			return &contract.Error{Kind: contract.InvalidInput, Message: message, Field: input.Name}
		}
		seen[input.Name] = true
	}
	for _, spec := range specs {
		if !seen[spec.Name] && !slices.Contains(optional, spec.Name) {
			message := "input \"" + spec.Name + "\" (" + spec.Datatype.String() + " " + Dimensions(spec.Shape) + ") is missing"
			return &contract.Error{Kind: contract.InvalidInput, Message: message, Field: spec.Name}
		}
	}
	return nil
}

// CheckOutputs checks what a model returned as the host does. Outputs may be missing.
func CheckOutputs(specs []contract.Spec, outputs []uint32) *contract.Error {
	for _, handle := range outputs {
		output := TensorOf(handle)
		spec := find(specs, output.Name)
		if spec == nil || spec.Datatype != output.Datatype || !output.IsFromModel && !accepts(spec.Shape, output.Shape) {
			message := "the plugin returned the output \"" + output.Name + "\" (" + output.Datatype.String() + " " +
				Dimensions(output.Shape) + "), which its metadata does not declare; declared: " + described(specs)
			return &contract.Error{Kind: contract.Failed, Message: message}
		}
	}
	return nil
}

func find(specs []contract.Spec, name string) *contract.Spec {
	for i := range specs {
		if specs[i].Name == name {
			return &specs[i]
		}
	}
	return nil
}

// accepts returns whether a tensor of this shape fits. A scalar may also have one element in any
// number of dimensions.
func accepts(spec, shape []int64) bool {
	if len(spec) == 0 {
		return !slices.ContainsFunc(shape, func(dimension int64) bool { return dimension != 1 })
	}
	if len(spec) != len(shape) {
		return false
	}
	for i, dimension := range spec {
		if dimension >= 0 && dimension != shape[i] {
			return false
		}
	}
	return true
}

func names(specs []contract.Spec) string {
	var list []string
	for _, spec := range specs {
		list = append(list, "\""+spec.Name+"\"")
	}
	return strings.Join(list, ", ")
}

func described(specs []contract.Spec) string {
	var list []string
	for _, spec := range specs {
		list = append(list, "\""+spec.Name+"\" ("+spec.Datatype.String()+" "+Dimensions(spec.Shape)+")")
	}
	return strings.Join(list, ", ")
}
