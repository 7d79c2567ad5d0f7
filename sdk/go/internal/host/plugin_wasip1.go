package host

import (
	"hostler/internal/abi"
	"hostler/internal/contract"
	"runtime"
	"unsafe"
)

//go:wasmimport hostler:plugin/assets@0.1.0 names
func assetsNames(to unsafe.Pointer)

//go:wasmimport hostler:plugin/assets@0.1.0 size
func assetsSize(name string, to unsafe.Pointer)

//go:wasmimport hostler:plugin/assets@0.1.0 read
func assetsRead(name string, offset, length uint64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/state@0.1.0 get
func stateGet(key string, to unsafe.Pointer)

//go:wasmimport hostler:plugin/state@0.1.0 set
func stateSet(key string, value unsafe.Pointer, length uint32, isSome uint32, ttlMS uint64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/state@0.1.0 get-tensors
func stateGetTensors(key string, to unsafe.Pointer)

//go:wasmimport hostler:plugin/state@0.1.0 set-tensors
func stateSetTensors(key string, tensors unsafe.Pointer, length uint32, isSome uint32, ttlMS uint64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/state@0.1.0 delete
func stateDelete(key string) uint32

//go:wasmimport hostler:plugin/state@0.1.0 add
func stateAdd(counter string, delta int64) int64

//go:wasmimport hostler:plugin/state@0.1.0 compare-exchange
func stateCompareExchange(counter string, expected, updated int64, to unsafe.Pointer)

//go:wasmimport wasi:logging/logging@0.1.0-draft log
func loggingLog(level uint32, context, message string)

//go:wasmimport wasi:config/store@0.2.0-rc.1 get
func configGet(key string, to unsafe.Pointer)

func AssetsNames() []string {
	call := abi.Begin()
	defer call.End()
	assetsNames(abi.Area())
	return texts(abi.Results(), 0)
}

func AssetsSize(name string) (uint64, *errorOf) {
	name = abi.Text(name)
	call := abi.Begin()
	defer call.End()
	assetsSize(name, abi.Area())
	r := abi.Results()
	if r.Byte(0) != 0 {
		return 0, errorAt(r.Add(8))
	}
	return uint64(r.Int64(8)), nil
}

// AssetsRead fills data from an offset, and returns how many bytes there were.
func AssetsRead(name string, offset uint64, data []byte) (int, *errorOf) {
	name = abi.Text(name)
	call := abi.Begin()
	defer call.End()
	abi.Into(data)
	assetsRead(name, offset, uint64(len(data)), abi.Area())
	r := abi.Results()
	if err := onlyError(r); err != nil {
		return 0, err
	}
	return placed(data, r, 4), nil
}

func StateGet(key string) ([]byte, bool) {
	key = abi.Text(key)
	call := abi.Begin()
	defer call.End()
	stateGet(key, abi.Area())
	r := abi.Results()
	if r.Byte(0) == 0 {
		return nil, false
	}
	return r.Bytes(4), true
}

// StateSet sets a key. The time to live is in milliseconds.
func StateSet(key string, value []byte, ttlMS int64) *errorOf {
	key = abi.Text(key)
	call := abi.Begin()
	defer call.End()
	isSome, ttl := option(ttlMS)
	stateSet(key, abi.Pointer(value), uint32(len(value)), isSome, ttl, abi.Area())
	runtime.KeepAlive(value)
	return onlyError(abi.Results())
}

func StateGetTensors(key string) ([]uint32, bool) {
	key = abi.Text(key)
	call := abi.Begin()
	defer call.End()
	stateGetTensors(key, abi.Area())
	r := abi.Results()
	if r.Byte(0) == 0 {
		return nil, false
	}
	return r.Words(4), true
}

// StateSetTensors sets a key. The time to live is in milliseconds.
func StateSetTensors(key string, tensors []uint32, ttlMS int64) *errorOf {
	key = abi.Text(key)
	call := abi.Begin()
	defer call.End()
	isSome, ttl := option(ttlMS)
	stateSetTensors(key, abi.Pointer(tensors), uint32(len(tensors)), isSome, ttl, abi.Area())
	return onlyError(abi.Results())
}

func StateDelete(key string) bool {
	key = abi.Text(key)
	call := abi.Begin()
	defer call.End()
	return stateDelete(key) != 0
}

func StateAdd(counter string, delta int64) int64 {
	counter = abi.Text(counter)
	call := abi.Begin()
	defer call.End()
	return stateAdd(counter, delta)
}

// StateCompareExchange returns whether the counter was changed, and otherwise its value.
func StateCompareExchange(counter string, expected, updated int64) (int64, bool) {
	counter = abi.Text(counter)
	call := abi.Begin()
	defer call.End()
	stateCompareExchange(counter, expected, updated, abi.Area())
	r := abi.Results()
	if r.Byte(0) == 0 {
		return updated, true
	}
	return r.Int64(8), false
}

func Log(level contract.Level, message string) {
	message = abi.Text(message)
	call := abi.Begin()
	defer call.End()
	loggingLog(uint32(level), "", message)
}

// ConfigGet returns the value of a key, and whether there is one.
func ConfigGet(key string) (string, bool, *errorOf) {
	key = abi.Text(key)
	call := abi.Begin()
	defer call.End()
	configGet(key, abi.Area())
	r := abi.Results()
	if r.Byte(0) != 0 {
		return "", false, &errorOf{Kind: contract.Failed, Message: r.String(8)}
	}
	if r.Byte(4) == 0 {
		return "", false, nil
	}
	return r.String(8), true, nil
}
