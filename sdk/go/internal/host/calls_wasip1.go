package host

import (
	"hostler/internal/abi"
	"hostler/internal/contract"
	"unsafe"
)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]callable.model
func callableModel(callable uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]callable.version
func callableVersion(callable uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]callable.streaming
func callableStreaming(callable uint32) uint32

//go:wasmimport hostler:plugin/callables@0.1.0 [method]callable.call
func callableCall(callable uint32, inputs unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]callable.call-within
func callableCallWithin(callable uint32, inputs unsafe.Pointer, length uint32, timeoutUS uint64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]callable.start
func callableStart(callable uint32, inputs unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]callable.start-within
func callableStartWithin(callable uint32, inputs unsafe.Pointer, length uint32, timeoutUS uint64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [resource-drop]callable
func callableDrop(callable uint32)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]invocation.outcome
func invocationOutcome(invocation uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [method]invocation.next
func invocationNext(invocation uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 [resource-drop]invocation
func invocationDrop(invocation uint32)

//go:wasmimport hostler:plugin/callables@0.1.0 wait-any
func waitAny(invocations unsafe.Pointer, length uint32, isSome uint32, timeoutUS uint64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/callables@0.1.0 answer
func answer(outputs unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/models@0.1.0 get
func modelsGet(model string, isSome uint32, version string, to unsafe.Pointer)

func CallableModel(callable uint32) string {
	call := abi.Begin()
	defer call.End()
	callableModel(callable, abi.Area())
	return abi.Results().String(0)
}

func CallableVersion(callable uint32) string {
	call := abi.Begin()
	defer call.End()
	callableVersion(callable, abi.Area())
	return abi.Results().String(0)
}

func CallableStreaming(callable uint32) bool {
	call := abi.Begin()
	defer call.End()
	return callableStreaming(callable) != 0
}

// CallableCall waits for the one response of a model. The timeout is in microseconds.
func CallableCall(callable uint32, inputs []uint32, timeoutUS int64) contract.Outcome {
	call := abi.Begin()
	defer call.End()
	if timeoutUS < 0 {
		callableCall(callable, abi.Pointer(inputs), uint32(len(inputs)), abi.Area())
	} else {
		callableCallWithin(callable, abi.Pointer(inputs), uint32(len(inputs)), uint64(timeoutUS), abi.Area())
	}
	return outcome(abi.Results())
}

// CallableStart starts a call. The timeout is in microseconds.
func CallableStart(callable uint32, inputs []uint32, timeoutUS int64) (uint32, *errorOf) {
	call := abi.Begin()
	defer call.End()
	if timeoutUS < 0 {
		callableStart(callable, abi.Pointer(inputs), uint32(len(inputs)), abi.Area())
	} else {
		callableStartWithin(callable, abi.Pointer(inputs), uint32(len(inputs)), uint64(timeoutUS), abi.Area())
	}
	return handleOrError(abi.Results())
}

func CallableDrop(callable uint32) {
	callableDrop(callable)
}

func InvocationOutcome(invocation uint32) (contract.Outcome, bool) {
	call := abi.Begin()
	defer call.End()
	invocationOutcome(invocation, abi.Area())
	return maybeOutcome(abi.Results())
}

func InvocationNext(invocation uint32) (contract.Outcome, bool) {
	call := abi.Begin()
	defer call.End()
	invocationNext(invocation, abi.Area())
	return maybeOutcome(abi.Results())
}

func InvocationDrop(invocation uint32) {
	invocationDrop(invocation)
}

// WaitAny returns the index of an invocation that has a response or has ended.
func WaitAny(invocations []uint32, timeoutUS int64) (int, bool) {
	call := abi.Begin()
	defer call.End()
	isSome, timeout := option(timeoutUS)
	waitAny(abi.Pointer(invocations), uint32(len(invocations)), isSome, timeout, abi.Area())
	r := abi.Results()
	return int(r.Uint32(4)), r.Byte(0) != 0
}

func Answer(outputs []uint32) *errorOf {
	call := abi.Begin()
	defer call.End()
	answer(abi.Pointer(outputs), uint32(len(outputs)), abi.Area())
	return onlyError(abi.Results())
}

// ModelsGet returns a model. An empty version is none.
func ModelsGet(model, version string) (uint32, *errorOf) {
	model, version = abi.Text(model), abi.Text(version)
	call := abi.Begin()
	defer call.End()
	var isSome uint32
	if version != "" {
		isSome = 1
	}
	modelsGet(model, isSome, version, abi.Area())
	return handleOrError(abi.Results())
}
