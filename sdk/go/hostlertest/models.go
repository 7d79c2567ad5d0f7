package hostlertest

import (
	"hostler"
	"hostler/internal/contract"
	"hostler/internal/standin"
	"strings"
	"time"
)

// Answer answers a call to a model. What it returns belongs to the host then.
type Answer func(inputs []*hostler.Tensor) ([]*hostler.Tensor, error)

// Model is a model that a plugin can call.
type Model struct {
	// Answer returns the one response.
	Answer Answer
	// Responses returns the responses of a streaming model, instead of Answer. They end at the first
	// error.
	Responses func(inputs []*hostler.Tensor) []hostler.Outcome
	// Refusal returns an error if the call is not admitted, such as one of the kind Overloaded.
	Refusal func() error
	// Delay is the time until the first response, Interval that between two responses.
	Delay, Interval time.Duration
}

// Model adds a model. A name may have a version: plus:2; otherwise it is 1.
func (h *Host) Model(name string, answer Answer) {
	h.AddModel(name, Model{Answer: answer})
}

// AddModel is like Model, for models that take time, refuse calls or have 0..n responses.
func (h *Host) AddModel(name string, model Model) {
	name, version := nameAndVersion(name)
	added := &standin.Model{
		Name: name, Version: version, IsStreaming: model.Responses != nil, Delay: model.Delay, Interval: model.Interval,
	}
	added.Answer = func(handles []uint32) []contract.Outcome {
		inputs := hostler.AdoptTensors(key, handles)
		if model.Responses == nil {
			tensors, err := model.Answer(inputs)
			return []contract.Outcome{response(hostler.Outcome{Tensors: tensors, Err: err})}
		}
		var outcomes []contract.Outcome
		for _, outcome := range model.Responses(inputs) {
			outcomes = append(outcomes, response(outcome))
		}
		return outcomes
	}
	if model.Refusal != nil {
		added.Refusal = func() *contract.Error {
			if err := model.Refusal(); err != nil {
				return hostler.ContractError(key, err)
			}
			return nil
		}
	}
	h.data.Models[name+":"+version] = added
}

func response(outcome hostler.Outcome) contract.Outcome {
	if outcome.Err != nil {
		return contract.Outcome{Err: hostler.ContractError(key, outcome.Err)}
	}
	handles, err := hostler.GiveTensors(key, "the model of the test", outcome.Tensors)
	if err != nil {
		return contract.Outcome{Err: err}
	}
	for _, handle := range handles {
		standin.TensorOf(handle).IsFromModel = true
	}
	return contract.Outcome{Tensors: handles}
}

// Calls returns the inputs of each call to a model.
func (h *Host) Calls(name string) [][]*hostler.Tensor {
	name, version := nameAndVersion(name)
	model := h.data.Models[name+":"+version]
	if model == nil {
		return nil
	}
	calls := make([][]*hostler.Tensor, len(model.Calls))
	for i, handles := range model.Calls {
		calls[i] = h.adopted(standin.Copies(handles))
	}
	return calls
}

// find returns a handle of a model.
func (h *Host) find(name string) uint32 {
	h.t.Helper()
	name, version := nameAndVersion(name)
	handle, err := h.data.Find(name, version)
	if err != nil {
		h.t.Fatalf("%v; add it with host.Model", err)
	}
	return handle
}

func nameAndVersion(name string) (string, string) {
	if name, version, has := strings.Cut(name, ":"); has {
		return name, version
	}
	return name, "1"
}
