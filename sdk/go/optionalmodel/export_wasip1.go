package optionalmodel

import "hostler/internal/abi"

//go:wasmexport hostler:plugin/optional-inputs@0.1.0#names
func exportNames() uint32 {
	names := plugin.OptionalInputs()
	result := abi.NewResult()
	result.Strings(result.Words(), names)
	return result.Address()
}
