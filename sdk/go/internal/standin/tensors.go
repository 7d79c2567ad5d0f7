// Package standin stands in for the host in unit tests: what the host keeps is in memory. The package
// hostlertest is its public side.
package standin

import (
	"encoding/binary"
	"hostler/internal/contract"
	"strconv"
	"strings"
	"sync"
)

// Tensor is a tensor of the stand-in.
type Tensor struct {
	Name     string
	Datatype contract.Datatype
	Shape    []int64
	Data     []byte
	// IsFromModel: a model returned it, so its shape may differ from the plugin's metadata.
	IsFromModel bool
}

// Tensors need no host, so that a test can create them before it has one.
var (
	mu      sync.Mutex
	tensors = map[uint32]*Tensor{}
	handles uint32
)

// newHandle returns a handle that was never used.
func newHandle() uint32 {
	mu.Lock()
	defer mu.Unlock()
	handles++
	return handles
}

// AddTensor adds a tensor and returns its handle.
func AddTensor(tensor *Tensor) uint32 {
	handle := newHandle()
	mu.Lock()
	defer mu.Unlock()
	tensors[handle] = tensor
	return handle
}

// TensorOf returns the tensor with a handle.
func TensorOf(handle uint32) *Tensor {
	mu.Lock()
	defer mu.Unlock()
	tensor := tensors[handle]
	if tensor == nil {
		panic("hostler: the stand-in has no tensor with the handle " + strconv.Itoa(int(handle)))
	}
	return tensor
}

// DropTensor releases a handle.
func DropTensor(handle uint32) {
	mu.Lock()
	defer mu.Unlock()
	delete(tensors, handle)
}

// Copies returns other handles of the same tensors.
func Copies(list []uint32) []uint32 {
	copies := make([]uint32, len(list))
	for i, handle := range list {
		copies[i] = AddTensor(TensorOf(handle))
	}
	return copies
}

// CountTensors returns the number of handles that were not released.
func CountTensors() int {
	mu.Lock()
	defer mu.Unlock()
	return len(tensors)
}

// CreateTensor creates a tensor, with the checks of the host.
func CreateTensor(name string, datatype contract.Datatype, shape []int64, data []byte) (uint32, *contract.Error) {
	elements, err := count(name, shape)
	if err != nil {
		return 0, err
	}
	size := datatype.ElementBytes()
	if size == 0 {
		if found, ok := countBytes(data); !ok || found != elements {
			return 0, invalid(name, "BYTES of shape "+Dimensions(shape)+" needs "+strconv.Itoa(elements)+" elements, got "+strconv.Itoa(found))
		}
	} else if elements*size != len(data) {
		return 0, invalid(name, datatype.String()+" of shape "+Dimensions(shape)+" needs "+strconv.Itoa(elements*size)+" bytes, got "+strconv.Itoa(len(data)))
	}
	return AddTensor(&Tensor{
		Name: name, Datatype: datatype, Shape: append([]int64{}, shape...), Data: append([]byte{}, data...),
	}), nil
}

// Reshaped returns the same data in another shape.
func Reshaped(handle uint32, shape []int64) (uint32, *contract.Error) {
	tensor := *TensorOf(handle)
	now, err := count(tensor.Name, tensor.Shape)
	if err != nil {
		return 0, err
	}
	wanted, err := count(tensor.Name, shape)
	if err != nil {
		return 0, err
	}
	if now != wanted {
		return 0, invalid(tensor.Name, "cannot change the shape from "+Dimensions(tensor.Shape)+" to "+Dimensions(shape))
	}
	tensor.Shape = append([]int64{}, shape...)
	return AddTensor(&tensor), nil
}

// Renamed returns the same data under another name.
func Renamed(handle uint32, name string) uint32 {
	tensor := *TensorOf(handle)
	tensor.Name = name
	return AddTensor(&tensor)
}

func count(name string, shape []int64) (int, *contract.Error) {
	elements := int64(1)
	for _, dimension := range shape {
		if dimension < 0 {
			return 0, invalid(name, "a dimension of "+Dimensions(shape)+" is negative")
		}
		if dimension > 0 && elements > (1<<40)/dimension {
			return 0, invalid(name, "the shape "+Dimensions(shape)+" is too large")
		}
		elements *= dimension
	}
	return int(elements), nil
}

func countBytes(data []byte) (int, bool) {
	elements := 0
	for len(data) > 0 {
		if len(data) < 4 {
			return elements, false
		}
		length := int(binary.LittleEndian.Uint32(data))
		if length > len(data)-4 {
			return elements, false
		}
		data = data[4+length:]
		elements++
	}
	return elements, true
}

func invalid(name, message string) *contract.Error {
	return &contract.Error{Kind: contract.InvalidInput, Message: "tensor \"" + name + "\": " + message}
}

// Dimensions returns a shape as text: [1,18].
func Dimensions(shape []int64) string {
	dimensions := make([]string, len(shape))
	for i, dimension := range shape {
		dimensions[i] = strconv.FormatInt(dimension, 10)
	}
	return "[" + strings.Join(dimensions, ",") + "]"
}
