package abi

import (
	"hostler/internal/contract"
	"unsafe"
)

// held keeps what the result of the last export points to.
var held []any

// Result writes the result of an export.
type Result struct{}

// NewResult begins the result of an export. That of the last one is released.
func NewResult() Result {
	clear(held)
	held = held[:0]
	out = [8]uint64{}
	return Result{}
}

// Address is what the export returns.
func (Result) Address() uint32 {
	return address(unsafe.Pointer(&out))
}

// Words returns the result as 32-bit words.
func (Result) Words() []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(&out)), 16)
}

// String writes the address and the length of a string.
func (Result) String(at []uint32, s string) {
	s = Text(s)
	held = append(held, s)
	at[0], at[1] = address(unsafe.Pointer(unsafe.StringData(s))), uint32(len(s))
}

// Bytes writes the address and the length of a list of bytes.
func (Result) Bytes(at []uint32, data []byte) {
	list(at, data)
}

// List writes the address and the length of a list of handles, or of what takes several words.
func (Result) List(at []uint32, words []uint32, length int) {
	list(at, words)
	at[1] = uint32(length)
}

func list[T any](at []uint32, elements []T) {
	held = append(held, elements)
	at[0], at[1] = address(unsafe.Pointer(unsafe.SliceData(elements))), uint32(len(elements))
}

// Error writes an error of the contract, which takes 6 words.
func (r Result) Error(at []uint32, err *contract.Error) {
	at[0] = uint32(err.Kind)
	r.String(at[1:], err.Message)
	if err.Field != "" {
		at[3] = 1
		r.String(at[4:], err.Field)
	}
}

// Outcome writes a result with a list of tensors, which takes 7 words.
func (r Result) Outcome(at []uint32, outcome contract.Outcome) {
	if outcome.Err != nil {
		at[0] = 1
		r.Error(at[1:], outcome.Err)
		return
	}
	r.List(at[1:], outcome.Tensors, len(outcome.Tensors))
}

// Metadata writes the metadata of a model, which takes 4 words.
func (r Result) Metadata(at []uint32, metadata contract.Metadata) {
	r.specs(at, metadata.Inputs)
	r.specs(at[2:], metadata.Outputs)
}

func (r Result) specs(at []uint32, specs []contract.Spec) {
	const specWords = 5
	words := make([]uint32, specWords*len(specs))
	for i, spec := range specs {
		one := words[specWords*i:]
		r.String(one, spec.Name)
		one[2] = uint32(spec.Datatype)
		list(one[3:], append([]int64(nil), spec.Shape...))
	}
	r.List(at, words, len(specs))
}

// Strings writes a list of strings.
func (r Result) Strings(at []uint32, texts []string) {
	words := make([]uint32, 2*len(texts))
	for i, text := range texts {
		r.String(words[2*i:], text)
	}
	r.List(at, words, len(texts))
}

// Payload writes a payload, which takes 5 words.
func (r Result) Payload(at []uint32, payload contract.Payload) {
	at[0] = uint32(payload.Case)
	switch payload.Case {
	case contract.PayloadJSON:
		r.String(at[1:], string(payload.Data))
	case contract.PayloadBytes:
		r.String(at[1:], payload.ContentType)
		r.Bytes(at[3:], payload.Data)
	default:
		r.List(at[1:], payload.Tensors, len(payload.Tensors))
	}
}
