package executor

import (
	"hostler"
	"hostler/internal/abi"
	"hostler/internal/contract"
)

//go:wasmexport hostler:plugin/executor@0.1.0#submit
func exportSubmit(request, inputs, length, model uint32) uint32 {
	abi.Arguments()
	handles := abi.Words(inputs, length)
	abi.EndArguments()
	outcome := hostler.CallSubmit(contract.Key{}, plugin, request, handles, model)
	result := abi.NewResult()
	result.Outcome(result.Words(), outcome)
	return result.Address()
}

//go:wasmexport hostler:plugin/executor@0.1.0#submit-batch
func exportSubmitBatch(requests, requestsLength, inputs, inputsLength, model uint32) uint32 {
	abi.Arguments()
	owned := abi.Words(requests, requestsLength)
	lists := make([][]uint32, inputsLength)
	for i := range lists {
		lists[i] = abi.At(inputs).Words(8 * i)
	}
	abi.EndArguments()
	outcomes, err := hostler.CallSubmitBatch(contract.Key{}, plugin, owned, lists, model)
	result := abi.NewResult()
	words := result.Words()
	if err != nil {
		words[0] = 1
		result.Error(words[1:], err)
		return result.Address()
	}
	const outcomeWords = 7
	list := make([]uint32, outcomeWords*len(outcomes))
	for i, outcome := range outcomes {
		result.Outcome(list[outcomeWords*i:], outcome)
	}
	result.List(words[1:], list, len(outcomes))
	return result.Address()
}
