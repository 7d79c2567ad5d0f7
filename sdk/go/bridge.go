package hostler

import "hostler/internal/contract"

// The functions of this file are for the package hostlertest.

// AdoptTensors returns tensors for handles, which become the caller's.
func AdoptTensors(_ contract.Key, handles []uint32) []*Tensor {
	return newTensors(handles)
}

// LendTensors returns the handles of tensors that remain the caller's.
func LendTensors(_ contract.Key, tensors []*Tensor) []uint32 {
	return lent(tensors, "this function of the test")
}

// GiveTensors returns the handles of tensors that a model of a test returns.
func GiveTensors(_ contract.Key, what string, tensors []*Tensor) ([]uint32, *Error) {
	handles, err := given(what, tensors)
	if err != nil {
		return nil, err
	}
	return handles[0], nil
}

// ContractError returns what a caller receives for an error of a model of a test.
func ContractError(_ contract.Key, err error) *Error {
	return contractError(err)
}

// RawPayload returns a payload whose tensors remain the caller's.
func RawPayload(_ contract.Key, payload Payload) (contract.Payload, *Error) {
	if tensors, is := payload.(Tensors); is {
		return contract.Payload{Case: contract.PayloadTensors, Tensors: lent(tensors, "this function of the test")}, nil
	}
	return rawPayload("the test", payload)
}

// PayloadFrom returns a payload with tensors that become the caller's.
func PayloadFrom(_ contract.Key, payload contract.Payload) Payload {
	return payloadOf(payload)
}
