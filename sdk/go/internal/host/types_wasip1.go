package host

import (
	"hostler/internal/abi"
	"math"
	"runtime"
	"unsafe"
)

//go:wasmimport hostler:plugin/types@0.1.0 [static]tensor.create
func tensorCreate(name string, datatype uint32, shape unsafe.Pointer, shapeLength uint32, data unsafe.Pointer, dataLength uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]tensor.name
func tensorName(tensor uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]tensor.datatype
func tensorDatatype(tensor uint32) uint32

//go:wasmimport hostler:plugin/types@0.1.0 [method]tensor.shape
func tensorShape(tensor uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]tensor.byte-length
func tensorByteLength(tensor uint32) uint64

//go:wasmimport hostler:plugin/types@0.1.0 [method]tensor.read
func tensorRead(tensor uint32, offset, length uint64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]tensor.renamed
func tensorRenamed(tensor uint32, name string) uint32

//go:wasmimport hostler:plugin/types@0.1.0 [method]tensor.reshaped
func tensorReshaped(tensor uint32, shape unsafe.Pointer, shapeLength uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [resource-drop]tensor
func tensorDrop(tensor uint32)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.id
func requestID(request uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.model
func requestModel(request uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.version
func requestVersion(request uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.time-left
func requestTimeLeft(request uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.cancelled
func requestCancelled(request uint32) uint32

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.parameter
func requestParameter(request uint32, name string, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.parameter-names
func requestParameterNames(request uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.note
func requestNote(request uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/types@0.1.0 [method]request.set-note
func requestSetNote(request uint32, data unsafe.Pointer, length uint32)

//go:wasmimport hostler:plugin/types@0.1.0 [resource-drop]request
func requestDrop(request uint32)

func TensorCreate(name string, d datatype, shape []int64, data []byte) (uint32, *errorOf) {
	name = abi.Text(name)
	call := abi.Begin()
	defer call.End()
	tensorCreate(name, uint32(d), abi.Pointer(shape), uint32(len(shape)), abi.Pointer(data), uint32(len(data)), abi.Area())
	runtime.KeepAlive(data)
	return handleOrError(abi.Results())
}

func TensorName(tensor uint32) string {
	call := abi.Begin()
	defer call.End()
	tensorName(tensor, abi.Area())
	return abi.Results().String(0)
}

func TensorDatatype(tensor uint32) datatype {
	call := abi.Begin()
	defer call.End()
	return datatype(tensorDatatype(tensor))
}

func TensorShape(tensor uint32) []int64 {
	call := abi.Begin()
	defer call.End()
	tensorShape(tensor, abi.Area())
	return abi.Int64s(abi.Results().Uint32(0), abi.Results().Uint32(4))
}

func TensorByteLength(tensor uint32) uint64 {
	call := abi.Begin()
	defer call.End()
	return tensorByteLength(tensor)
}

// TensorRead fills data from an offset, and returns how many bytes there were.
func TensorRead(tensor uint32, offset uint64, data []byte) int {
	call := abi.Begin()
	defer call.End()
	abi.Into(data)
	tensorRead(tensor, offset, uint64(len(data)), abi.Area())
	return placed(data, abi.Results(), 0)
}

func TensorRenamed(tensor uint32, name string) uint32 {
	name = abi.Text(name)
	call := abi.Begin()
	defer call.End()
	return tensorRenamed(tensor, name)
}

func TensorReshaped(tensor uint32, shape []int64) (uint32, *errorOf) {
	call := abi.Begin()
	defer call.End()
	tensorReshaped(tensor, abi.Pointer(shape), uint32(len(shape)), abi.Area())
	return handleOrError(abi.Results())
}

func TensorDrop(tensor uint32) {
	tensorDrop(tensor)
}

func RequestID(request uint32) string {
	call := abi.Begin()
	defer call.End()
	requestID(request, abi.Area())
	return abi.Results().String(0)
}

func RequestModel(request uint32) string {
	call := abi.Begin()
	defer call.End()
	requestModel(request, abi.Area())
	return abi.Results().String(0)
}

func RequestVersion(request uint32) string {
	call := abi.Begin()
	defer call.End()
	requestVersion(request, abi.Area())
	return abi.Results().String(0)
}

// RequestTimeLeft returns milliseconds, and whether there is a limit.
func RequestTimeLeft(request uint32) (uint64, bool) {
	call := abi.Begin()
	defer call.End()
	requestTimeLeft(request, abi.Area())
	r := abi.Results()
	return uint64(r.Int64(8)), r.Byte(0) != 0
}

func RequestCancelled(request uint32) bool {
	call := abi.Begin()
	defer call.End()
	return requestCancelled(request) != 0
}

// RequestParameter returns a bool, int64, float64 or string; nil if there is no such parameter.
func RequestParameter(request uint32, name string) any {
	name = abi.Text(name)
	call := abi.Begin()
	defer call.End()
	requestParameter(request, name, abi.Area())
	r := abi.Results()
	if r.Byte(0) == 0 {
		return nil
	}
	switch r.Byte(8) {
	case ParameterBool:
		return r.Byte(16) != 0
	case ParameterInteger:
		return r.Int64(16)
	case ParameterNumber:
		return math.Float64frombits(uint64(r.Int64(16)))
	default:
		return r.String(16)
	}
}

func RequestParameterNames(request uint32) []string {
	call := abi.Begin()
	defer call.End()
	requestParameterNames(request, abi.Area())
	return texts(abi.Results(), 0)
}

func RequestNote(request uint32) []byte {
	call := abi.Begin()
	defer call.End()
	requestNote(request, abi.Area())
	return abi.Results().Bytes(0)
}

func RequestSetNote(request uint32, data []byte) {
	call := abi.Begin()
	defer call.End()
	requestSetNote(request, abi.Pointer(data), uint32(len(data)))
	runtime.KeepAlive(data)
}

func RequestDrop(request uint32) {
	requestDrop(request)
}
