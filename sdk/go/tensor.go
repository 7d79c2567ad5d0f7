package hostler

import (
	"hostler/internal/host"
	"strconv"
	"strings"
)

// Tensor is an immutable tensor that the host owns; the plugin has a handle. Passing a tensor on,
// Renamed and Reshaped never copy its bytes. Bytes are little-endian, row-major, without padding.
//
// A tensor belongs to the call of the plugin in which it was received or created. It is released when
// that has returned. A function that is called with a tensor that was returned to the host, closed or
// released panics, and the caller receives the error Failed.
type Tensor struct {
	handle uint32
	// why says why the handle must not be used, if it is 0.
	why   string
	scope *scope
	// shape is nil until it is asked for.
	shape []int64
}

// CreateTensor creates a tensor from bytes. The error is InvalidInput if a dimension is negative, if
// the shape times the size of the datatype is not the number of bytes, or, for Bytes, if the elements
// are not well-formed. See also [NewTensor].
func CreateTensor(name string, datatype Datatype, shape []int64, data []byte) (*Tensor, error) {
	handle, err := host.TensorCreate(name, datatype, shape, data)
	if err != nil {
		return nil, err
	}
	return newTensor(handle), nil
}

func (t *Tensor) use(what string) uint32 {
	if t == nil {
		panic(misuse(what + ": the tensor is nil"))
	}
	if t.handle == 0 {
		panic(misuse(what + ": this tensor must not be used: " + t.why))
	}
	return t.handle
}

func (t *Tensor) release(why string) {
	if t.handle != 0 {
		host.TensorDrop(t.handle)
		t.handle, t.why = 0, why
	}
}

// Name returns the name of the tensor.
func (t *Tensor) Name() string {
	return host.TensorName(t.use("Tensor.Name"))
}

// Datatype returns the type of the elements.
func (t *Tensor) Datatype() Datatype {
	return host.TensorDatatype(t.use("Tensor.Datatype"))
}

// Shape returns the dimensions, in a slice of the caller's own.
func (t *Tensor) Shape() []int64 {
	handle := t.use("Tensor.Shape")
	if t.shape == nil {
		t.shape = append([]int64{}, host.TensorShape(handle)...)
	}
	return append([]int64{}, t.shape...)
}

// ByteLength returns the number of bytes of the data.
func (t *Tensor) ByteLength() int {
	return int(host.TensorByteLength(t.use("Tensor.ByteLength")))
}

// ReadAt copies bytes from an offset into data, and returns how many there were. There are fewer
// than len(data) only at the end of the tensor.
func (t *Tensor) ReadAt(data []byte, offset int) int {
	handle := t.use("Tensor.ReadAt")
	if offset < 0 {
		panic(misuse("Tensor.ReadAt: the offset is negative"))
	}
	return host.TensorRead(handle, uint64(offset), data)
}

// Data returns a copy of all bytes.
func (t *Tensor) Data() []byte {
	data := make([]byte, t.ByteLength())
	return data[:t.ReadAt(data, 0)]
}

// Renamed returns the same data under another name.
func (t *Tensor) Renamed(name string) *Tensor {
	return newTensor(host.TensorRenamed(t.use("Tensor.Renamed"), name))
}

// Reshaped returns the same data in another shape with the same number of elements. The error is
// InvalidInput if the number differs.
func (t *Tensor) Reshaped(shape ...int64) (*Tensor, error) {
	handle, err := host.TensorReshaped(t.use("Tensor.Reshaped"), shape)
	if err != nil {
		return nil, err
	}
	return newTensor(handle), nil
}

// Keep keeps the tensor after the call that it belongs to, until Close, and returns it. It counts
// against the limits of the instance.
func (t *Tensor) Keep() *Tensor {
	t.use("Tensor.Keep")
	if t.scope != nil {
		for i, other := range t.scope.tensors {
			if other == t {
				t.scope.tensors = append(t.scope.tensors[:i], t.scope.tensors[i+1:]...)
				break
			}
		}
		t.scope = nil
	}
	return t
}

// Close releases the tensor now instead of at the end of the call. Closing it again does nothing.
func (t *Tensor) Close() {
	if t != nil {
		t.release(whyClosed)
	}
}

// Described returns the datatype and the shape: FP32 [1,18].
func (t *Tensor) Described() string {
	return Described(t.Datatype(), t.Shape())
}

// Described returns a datatype and a shape in one text: FP32 [1,18].
func Described(datatype Datatype, shape []int64) string {
	dimensions := make([]string, len(shape))
	for i, dimension := range shape {
		dimensions[i] = strconv.FormatInt(dimension, 10)
	}
	return datatype.String() + " [" + strings.Join(dimensions, ",") + "]"
}

// Named returns the tensor with a name. The error is Failed, with the names that there are.
func Named(tensors []*Tensor, name string) (*Tensor, error) {
	names := make([]string, len(tensors))
	for i, tensor := range tensors {
		if names[i] = tensor.Name(); names[i] == name {
			return tensor, nil
		}
	}
	return nil, NewError(Failed, "no tensor \""+name+"\"; tensors: \""+strings.Join(names, "\", \"")+"\"")
}
