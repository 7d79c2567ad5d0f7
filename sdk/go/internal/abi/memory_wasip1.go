package abi

import (
	"strings"
	"unicode/utf8"
	"unsafe"
)

// area receives the results of imports. It is used under mu.
var area [8]uint64

// out has the result of the last export until the next one is called.
var out [8]uint64

// kept has what the arguments of an import point to, until its end.
var kept []string

// Area returns where an import writes its results.
func Area() unsafe.Pointer {
	return unsafe.Pointer(&area)
}

// Results reads what an import has written.
func Results() Reader {
	return Reader{unsafe.Pointer(&area)}
}

// Reader reads values at offsets from an address.
type Reader struct {
	base unsafe.Pointer
}

// At returns a reader of an address.
func At(address uint32) Reader {
	return Reader{pointer(address)}
}

// Add returns a reader of a later address.
func (r Reader) Add(offset int) Reader {
	return Reader{unsafe.Add(r.base, offset)}
}

// Byte returns a byte, such as the discriminant of a variant.
func (r Reader) Byte(offset int) byte {
	return *(*byte)(unsafe.Add(r.base, offset))
}

// Uint16 returns 16 bits.
func (r Reader) Uint16(offset int) uint16 {
	return *(*uint16)(unsafe.Add(r.base, offset))
}

// Uint32 returns 32 bits.
func (r Reader) Uint32(offset int) uint32 {
	return *(*uint32)(unsafe.Add(r.base, offset))
}

// Int64 returns 64 bits.
func (r Reader) Int64(offset int) int64 {
	return *(*int64)(unsafe.Add(r.base, offset))
}

// Float64 returns a number.
func (r Reader) Float64(offset int) float64 {
	return *(*float64)(unsafe.Add(r.base, offset))
}

// String copies a string.
func (r Reader) String(offset int) string {
	return String(r.Uint32(offset), r.Uint32(offset+4))
}

// Bytes copies a list of bytes.
func (r Reader) Bytes(offset int) []byte {
	return Bytes(r.Uint32(offset), r.Uint32(offset+4))
}

// Words copies a list of handles.
func (r Reader) Words(offset int) []uint32 {
	return Words(r.Uint32(offset), r.Uint32(offset+4))
}

// String copies a string.
func String(address, length uint32) string {
	if length == 0 {
		return ""
	}
	return string(unsafe.Slice((*byte)(pointer(address)), length))
}

// Bytes copies a list of bytes.
func Bytes(address, length uint32) []byte {
	if length == 0 {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(pointer(address)), length)...)
}

// Words copies a list of handles.
func Words(address, length uint32) []uint32 {
	if length == 0 {
		return nil
	}
	return append([]uint32(nil), unsafe.Slice((*uint32)(pointer(address)), length)...)
}

// Int64s copies a list of 64-bit integers.
func Int64s(address, length uint32) []int64 {
	if length == 0 {
		return nil
	}
	return append([]int64(nil), unsafe.Slice((*int64)(pointer(address)), length)...)
}

// Text returns a string that is UTF-8: the host ends an instance that passes any other.
func Text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Address returns the address of a string for an argument that is a list or a record, and keeps
// the string until the end of the import.
func Address(s string) uint32 {
	// The variable makes the string escape, so that it is not on a stack, which may move.
	kept = append(kept, s)
	return address(unsafe.Pointer(unsafe.StringData(s)))
}

// Strings returns a list of strings as the ABI has it: addresses and lengths.
func Strings(texts []string) []uint32 {
	list := make([]uint32, 0, 2*len(texts))
	for _, text := range texts {
		text = Text(text)
		list = append(list, Address(text), uint32(len(text)))
	}
	return list
}

// Pointer returns the address of the first element of a slice.
func Pointer[T any](s []T) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(s))
}

func pointer(address uint32) unsafe.Pointer {
	return unsafe.Pointer(uintptr(address))
}

func address(p unsafe.Pointer) uint32 {
	return uint32(uintptr(p))
}

// IsAt returns whether a slice begins at an address.
func IsAt(data []byte, at uint32) bool {
	return address(unsafe.Pointer(unsafe.SliceData(data))) == at
}
