package host

import (
	"hostler/internal/abi"
	"hostler/internal/contract"
)

// handleOrError reads result<handle, error>.
func handleOrError(r abi.Reader) (uint32, *errorOf) {
	if r.Byte(0) != 0 {
		return 0, errorAt(r.Add(4))
	}
	return r.Uint32(4), nil
}

// onlyError reads result<_, error>.
func onlyError(r abi.Reader) *errorOf {
	if r.Byte(0) != 0 {
		return errorAt(r.Add(4))
	}
	return nil
}

// outcome reads result<list<tensor>, error>.
func outcome(r abi.Reader) contract.Outcome {
	if err := onlyError(r); err != nil {
		return contract.Outcome{Err: err}
	}
	return contract.Outcome{Tensors: r.Words(4)}
}

// maybeOutcome reads option<result<list<tensor>, error>>.
func maybeOutcome(r abi.Reader) (contract.Outcome, bool) {
	if r.Byte(0) == 0 {
		return contract.Outcome{}, false
	}
	return outcome(r.Add(4)), true
}

func errorAt(r abi.Reader) *errorOf {
	err := &errorOf{Kind: contract.Kind(r.Byte(0)), Message: r.String(4)}
	if r.Byte(12) != 0 {
		err.Field = r.String(16)
	}
	return err
}

// texts reads list<string>.
func texts(r abi.Reader, offset int) []string {
	length := int(r.Uint32(offset + 4))
	if length == 0 {
		return nil
	}
	list := abi.At(r.Uint32(offset))
	texts := make([]string, length)
	for i := range texts {
		texts[i] = list.String(8 * i)
	}
	return texts
}

// placed returns the length of a list that the host has placed in a slice. If it is elsewhere, it is
// copied.
func placed(data []byte, r abi.Reader, offset int) int {
	address, length := r.Uint32(offset), r.Uint32(offset+4)
	if length == 0 || abi.IsAt(data, address) {
		return int(length)
	}
	return copy(data, abi.Bytes(address, length))
}

// option returns an optional number as the ABI has it.
func option(value int64) (uint32, uint64) {
	if value < 0 {
		return 0, 0
	}
	return 1, uint64(value)
}
