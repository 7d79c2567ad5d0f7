package hostler

import (
	"hostler/internal/contract"
	"hostler/internal/host"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// The most functions of a traceback in the log. The host has a limit for each call.
const tracebackMax = 30

// guarded runs a function of the plugin: it begins and ends the scope of the call, and turns a panic
// into an error.
func guarded(what string, body func() *Error) (err *Error) {
	outer := current
	current = &scope{}
	defer func() {
		if value := recover(); value != nil {
			err = panicked(what, value)
		}
		current.end()
		current = outer
	}()
	return body()
}

// panicked returns the error for a panic, and writes its traceback to the log. It is called while
// the functions that have panicked are on the stack.
func panicked(what string, value any) *Error {
	frames := pluginFrames()
	message := what + " panicked: " + describe(value)
	if len(frames) > 0 {
		message += " (in " + frames[innermost(frames)] + ")"
	}
	host.Log(contract.LevelError, strings.Join(append([]string{message}, frames...), "\n  in "))
	return NewError(Failed, message)
}

func describe(value any) (text string) {
	// The methods below are the plugin's, and may panic themselves, such as those of a nil pointer.
	defer func() {
		if recover() != nil {
			text = "a value that cannot be described"
		}
	}()
	switch value := value.(type) {
	case error:
		return value.Error()
	case string:
		return value
	case interface{ String() string }:
		return value.String()
	case int:
		return strconv.Itoa(value)
	}
	return "a value that is no error and no text"
}

// pluginFrames returns the functions on the stack that are neither of this module nor of Go's
// runtime, each with its file and line. The innermost comes first.
func pluginFrames() []string {
	callers := make([]uintptr, 128)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	var found []string
	for len(found) < tracebackMax {
		frame, more := frames.Next()
		name := frame.Function
		isOwn := strings.HasPrefix(name, "hostler.") || strings.HasPrefix(name, "hostler/") || strings.HasPrefix(name, "hostler:")
		if name != "" && !isOwn && !strings.HasPrefix(name, "runtime.") {
			name = name[strings.LastIndexByte(name, '/')+1:]
			found = append(found, name+", "+path.Base(frame.File)+":"+strconv.Itoa(frame.Line))
		}
		if !more {
			break
		}
	}
	return found
}

// innermost returns the index of the innermost function of the package main, and 0 if there is none.
func innermost(frames []string) int {
	for i, frame := range frames {
		if strings.HasPrefix(frame, "main.") {
			return i
		}
	}
	return 0
}

func decimal(number int) string {
	return strconv.Itoa(number)
}

// The functions below are for the packages that export a role and for hostlertest. Handles of
// inputs become the plugin's.

// CallPreprocess calls a transformer.
func CallPreprocess(_ contract.Key, plugin Transformer, request uint32, input contract.Payload) contract.Outcome {
	const what = "transformer.preprocess"
	return tensorsOf(what, func() ([]*Tensor, error) {
		r := newRequest(request)
		return plugin.Preprocess(r, payloadOf(input))
	})
}

// CallPostprocess calls a transformer.
func CallPostprocess(_ contract.Key, plugin Transformer, request uint32, outputs []uint32) (result contract.Payload, err *Error) {
	const what = "transformer.postprocess"
	err = guarded(what, func() *Error {
		r := newRequest(request)
		payload, err := plugin.Postprocess(r, newTensors(outputs))
		if err != nil {
			return contractError(err)
		}
		var fault *Error
		result, fault = rawPayload(what, payload)
		return fault
	})
	return result, err
}

// CallPredict calls a model.
func CallPredict(_ contract.Key, plugin Model, request uint32, inputs []uint32) contract.Outcome {
	return tensorsOf("model.predict", func() ([]*Tensor, error) {
		r := newRequest(request)
		return plugin.Predict(r, newTensors(inputs))
	})
}

// CallSubmit calls an executor.
func CallSubmit(_ contract.Key, plugin Executor, request uint32, inputs []uint32, model uint32) contract.Outcome {
	return tensorsOf("executor.submit", func() ([]*Tensor, error) {
		r := newRequest(request)
		return plugin.Submit(r, newTensors(inputs), newCallable(model))
	})
}

// CallSubmitBatch calls an executor for several requests.
func CallSubmitBatch(_ contract.Key, plugin Executor, requests []uint32, inputs [][]uint32, model uint32) (outcomes []contract.Outcome, err *Error) {
	const what = "executor.submit-batch"
	err = guarded(what, func() *Error {
		owned := make([]*Request, len(requests))
		for i, request := range requests {
			owned[i] = newRequest(request)
		}
		lists := make([][]*Tensor, len(inputs))
		for i, handles := range inputs {
			lists[i] = newTensors(handles)
		}
		callable := newCallable(model)
		batch, can := plugin.(BatchExecutor)
		if !can {
			return NewError(Unsupported, "this executor answers one request at a time")
		}
		returned, err := batch.SubmitBatch(owned, lists, callable)
		if err != nil {
			return contractError(err)
		}
		if len(returned) != len(requests) {
			return NewError(Failed, what+" returned "+decimal(len(returned))+" outcomes for "+decimal(len(requests))+" requests")
		}
		var fault *Error
		outcomes, fault = rawOutcomes(what, returned)
		return fault
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

func rawOutcomes(what string, returned []Outcome) ([]contract.Outcome, *Error) {
	lists := make([][]*Tensor, len(returned))
	for i, outcome := range returned {
		if outcome.Err == nil {
			lists[i] = outcome.Tensors
		}
	}
	handles, fault := given(what, lists...)
	if fault != nil {
		return nil, fault
	}
	outcomes := make([]contract.Outcome, len(returned))
	for i, outcome := range returned {
		if outcome.Err != nil {
			outcomes[i].Err = contractError(outcome.Err)
		} else {
			outcomes[i].Tensors = handles[i]
		}
	}
	return outcomes, nil
}

// tensorsOf runs a function that returns tensors to the host.
func tensorsOf(what string, body func() ([]*Tensor, error)) (outcome contract.Outcome) {
	outcome.Err = guarded(what, func() *Error {
		tensors, err := body()
		if err != nil {
			return contractError(err)
		}
		handles, fault := given(what, tensors)
		if fault != nil {
			return fault
		}
		outcome.Tensors = handles[0]
		return nil
	})
	return outcome
}

func payloadOf(payload contract.Payload) Payload {
	switch payload.Case {
	case contract.PayloadJSON:
		return JSON(payload.Data)
	case contract.PayloadBytes:
		return Blob{ContentType: payload.ContentType, Data: payload.Data}
	}
	return Tensors(newTensors(payload.Tensors))
}

func rawPayload(what string, payload Payload) (contract.Payload, *Error) {
	switch payload := payload.(type) {
	case JSON:
		return contract.Payload{Case: contract.PayloadJSON, Data: payload}, nil
	case Blob:
		return contract.Payload{Case: contract.PayloadBytes, ContentType: payload.ContentType, Data: payload.Data}, nil
	case Tensors:
		handles, err := given(what, payload)
		if err != nil {
			return contract.Payload{}, err
		}
		return contract.Payload{Case: contract.PayloadTensors, Tensors: handles[0]}, nil
	}
	return contract.Payload{}, NewError(Failed, what+" returned no payload; return a hostler.JSON, hostler.Blob or hostler.Tensors")
}
