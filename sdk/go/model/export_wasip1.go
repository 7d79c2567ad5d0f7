package model

import (
	"hostler"
	"hostler/internal/abi"
	"hostler/internal/contract"
)

//go:wasmexport hostler:plugin/model@0.1.0#metadata
func exportMetadata() uint32 {
	metadata := plugin.Metadata()
	result := abi.NewResult()
	result.Metadata(result.Words(), metadata)
	return result.Address()
}

//go:wasmexport hostler:plugin/model@0.1.0#predict
func exportPredict(request, inputs, length uint32) uint32 {
	abi.Arguments()
	handles := abi.Words(inputs, length)
	abi.EndArguments()
	outcome := hostler.CallPredict(contract.Key{}, plugin, request, handles)
	result := abi.NewResult()
	result.Outcome(result.Words(), outcome)
	return result.Address()
}
