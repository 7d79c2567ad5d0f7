package hostler

import (
	"encoding/binary"
	"math"
	"strconv"
	"unsafe"
)

// Element is a Go type that the elements of a tensor can have. The type decides the datatype:
// float32 is FP32, string and []byte are BYTES, and so on.
type Element interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64 | string | []byte
}

// NewTensor creates a tensor from elements. The datatype is that of the type of the elements; for
// FP16 and BF16 there are NewFP16 and NewBF16. The error is InvalidInput if the shape has another
// number of elements.
func NewTensor[T Element](name string, shape []int64, elements []T) (*Tensor, error) {
	var data []byte
	switch elements := any(elements).(type) {
	case []bool:
		data = make([]byte, len(elements))
		for i, element := range elements {
			if element {
				data[i] = 1
			}
		}
	case []string:
		data = joined(elements)
	case [][]byte:
		data = joined(elements)
	default:
		data = view(any(elements))
	}
	return CreateTensor(name, datatypeOf[T](), shape, data)
}

// Elements returns a copy of the elements of a tensor. The error is Failed if T is not the type of
// the tensor's datatype.
func Elements[T Element](t *Tensor) ([]T, error) {
	want := datatypeOf[T]()
	if err := expect(t, want); err != nil {
		return nil, err
	}
	var result any
	switch want {
	case Bool:
		data := t.Data()
		flags := make([]bool, len(data))
		for i, b := range data {
			flags[i] = b != 0
		}
		result = flags
	case Bytes:
		parts, err := split(t.Data())
		if err != nil {
			return nil, err
		}
		var zero T
		if _, isText := any(zero).(string); isText {
			texts := make([]string, len(parts))
			for i, part := range parts {
				texts[i] = string(part)
			}
			result = texts
		} else {
			result = parts
		}
	default:
		elements := make([]T, t.ByteLength()/want.ElementBytes())
		t.ReadAt(view(any(elements)), 0)
		return elements, nil
	}
	return result.([]T), nil
}

// NewFP16 creates a tensor with 16-bit floating-point numbers. Each is rounded to the nearest, halves
// to the even one.
func NewFP16(name string, shape []int64, elements []float32) (*Tensor, error) {
	return newHalves(name, FP16, shape, elements, toFP16)
}

// NewBF16 is like NewFP16 for the datatype BF16.
func NewBF16(name string, shape []int64, elements []float32) (*Tensor, error) {
	return newHalves(name, BF16, shape, elements, toBF16)
}

func newHalves(name string, datatype Datatype, shape []int64, elements []float32, convert func(float32) uint16) (*Tensor, error) {
	data := make([]byte, 2*len(elements))
	for i, element := range elements {
		binary.LittleEndian.PutUint16(data[2*i:], convert(element))
	}
	return CreateTensor(name, datatype, shape, data)
}

// Floats returns the elements of a tensor of FP16, BF16 or FP32, without a loss. The error is Failed
// for another datatype.
func Floats(t *Tensor) ([]float32, error) {
	datatype := t.Datatype()
	convert := fromFP16
	switch datatype {
	case FP32:
		return Elements[float32](t)
	case BF16:
		convert = fromBF16
	case FP16:
	default:
		return nil, NewError(Failed, "tensor \""+t.Name()+"\": expected FP16, BF16 or FP32, got "+datatype.String())
	}
	data := t.Data()
	elements := make([]float32, len(data)/2)
	for i := range elements {
		elements[i] = convert(binary.LittleEndian.Uint16(data[2*i:]))
	}
	return elements, nil
}

func expect(t *Tensor, want Datatype) error {
	datatype := t.Datatype()
	if datatype == want {
		return nil
	}
	hint := ""
	if datatype == FP16 || datatype == BF16 {
		hint = "; use hostler.Floats"
	} else if name := elementNames[datatype]; name != "" {
		hint = "; use hostler.Elements[" + name + "]"
	}
	return NewError(Failed, "tensor \""+t.Name()+"\": expected "+want.String()+", got "+datatype.String()+hint)
}

var elementNames = map[Datatype]string{
	Bool: "bool", Uint8: "uint8", Uint16: "uint16", Uint32: "uint32", Uint64: "uint64",
	Int8: "int8", Int16: "int16", Int32: "int32", Int64: "int64",
	FP32: "float32", FP64: "float64", Bytes: "string",
}

func datatypeOf[T Element]() Datatype {
	var zero T
	switch any(zero).(type) {
	case bool:
		return Bool
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case float32:
		return FP32
	case float64:
		return FP64
	}
	return Bytes
}

// view returns the bytes of a slice of numbers, without a copy. The order of the bytes is that of the
// machine: WebAssembly and all machines that Hostler runs on are little-endian.
func view(elements any) []byte {
	switch elements := elements.(type) {
	case []uint8:
		return elements
	case []uint16:
		return bytesOf(elements)
	case []uint32:
		return bytesOf(elements)
	case []uint64:
		return bytesOf(elements)
	case []int8:
		return bytesOf(elements)
	case []int16:
		return bytesOf(elements)
	case []int32:
		return bytesOf(elements)
	case []int64:
		return bytesOf(elements)
	case []float32:
		return bytesOf(elements)
	case []float64:
		return bytesOf(elements)
	}
	return nil
}

func bytesOf[T any](elements []T) []byte {
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(elements))), len(elements)*int(unsafe.Sizeof(zero)))
}

// joined returns the elements of BYTES: each has its length before it.
func joined[T string | []byte](elements []T) []byte {
	size := 0
	for _, element := range elements {
		size += 4 + len(element)
	}
	data := make([]byte, 0, size)
	for _, element := range elements {
		if uint64(len(element)) > math.MaxUint32 {
			panic(misuse("an element of a tensor is longer than 4 GiB"))
		}
		data = binary.LittleEndian.AppendUint32(data, uint32(len(element)))
		data = append(data, element...)
	}
	return data
}

func split(data []byte) ([][]byte, error) {
	var parts [][]byte
	for at := 0; at < len(data); {
		if len(data)-at < 4 {
			return nil, NewError(Failed, "the data of a tensor of BYTES ends at byte "+strconv.Itoa(at))
		}
		length := int(binary.LittleEndian.Uint32(data[at:]))
		at += 4
		if length > len(data)-at {
			return nil, NewError(Failed, "the data of a tensor of BYTES ends at byte "+strconv.Itoa(at))
		}
		parts = append(parts, data[at:at+length:at+length])
		at += length
	}
	return parts, nil
}
