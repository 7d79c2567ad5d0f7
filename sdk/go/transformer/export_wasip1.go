package transformer

import (
	"hostler"
	"hostler/internal/abi"
	"hostler/internal/contract"
)

//go:wasmexport hostler:plugin/transformer@0.1.0#metadata
func exportMetadata() uint32 {
	var metadata *hostler.Metadata
	if described, is := plugin.(hostler.MetadataTransformer); is {
		metadata = described.Metadata()
	}
	result := abi.NewResult()
	if metadata != nil {
		result.Words()[0] = 1
		result.Metadata(result.Words()[1:], *metadata)
	}
	return result.Address()
}

// The words of a payload depend on its case: a text, a content type and data, or tensors.
//
//go:wasmexport hostler:plugin/transformer@0.1.0#preprocess
func exportPreprocess(request, kind, first, firstLength, second, secondLength uint32) uint32 {
	abi.Arguments()
	payload := contract.Payload{Case: int(kind)}
	switch payload.Case {
	case contract.PayloadJSON:
		payload.Data = abi.Bytes(first, firstLength)
	case contract.PayloadBytes:
		payload.ContentType, payload.Data = abi.String(first, firstLength), abi.Bytes(second, secondLength)
	default:
		payload.Tensors = abi.Words(first, firstLength)
	}
	abi.EndArguments()
	outcome := hostler.CallPreprocess(contract.Key{}, plugin, request, payload)
	result := abi.NewResult()
	result.Outcome(result.Words(), outcome)
	return result.Address()
}

//go:wasmexport hostler:plugin/transformer@0.1.0#postprocess
func exportPostprocess(request, outputs, length uint32) uint32 {
	abi.Arguments()
	handles := abi.Words(outputs, length)
	abi.EndArguments()
	payload, err := hostler.CallPostprocess(contract.Key{}, plugin, request, handles)
	result := abi.NewResult()
	words := result.Words()
	if err != nil {
		words[0] = 1
		result.Error(words[1:], err)
	} else {
		result.Payload(words[1:], payload)
	}
	return result.Address()
}
