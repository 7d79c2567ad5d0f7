package standin

import (
	"hostler/internal/contract"
	"time"
)

// Model is a model that a plugin can call in a test.
type Model struct {
	Name, Version string
	IsStreaming   bool
	// Answer returns the responses to a call. The inputs are the plugin's.
	Answer func(inputs []uint32) []contract.Outcome
	// Refusal returns an error if a call is not admitted.
	Refusal func() *contract.Error
	// Delay is the time until the first response, Interval that between two responses.
	Delay, Interval time.Duration
	// Calls has the inputs of each call.
	Calls [][]uint32
}

// call is a call in flight. Its responses are known, with their times.
type call struct {
	model     *Model
	responses []contract.Outcome
	times     []time.Duration
	end       time.Duration
	isTaken   bool
}

// Find returns a handle of a model. An empty version is the only one.
func (h *Host) Find(name, version string) (uint32, *contract.Error) {
	var found *Model
	for _, model := range h.Models {
		if model.Name == name && (version == "" || model.Version == version) {
			if found != nil {
				return 0, failure(contract.Unsupported, "the stand-in does not choose between versions of \""+name+"\"; name one")
			}
			found = model
		}
	}
	if found == nil {
		return 0, failure(contract.NotFound, "no model \""+name+"\"")
	}
	handle := newHandle()
	h.callables[handle] = found
	return handle, nil
}

// ModelOf returns the model with a handle.
func (h *Host) ModelOf(handle uint32) *Model {
	return h.callables[handle]
}

// DropModel releases a handle.
func (h *Host) DropModel(handle uint32) {
	delete(h.callables, handle)
}

// Start starts a call. A negative timeout is none.
func (h *Host) Start(model *Model, inputs []uint32, timeout time.Duration) (uint32, *contract.Error) {
	if end, fault := h.endOfRequest(); fault != nil && end <= h.Now {
		return 0, fault
	}
	model.Calls = append(model.Calls, Copies(inputs))
	if model.Refusal != nil {
		if fault := model.Refusal(); fault != nil {
			return 0, fault
		}
	}
	c := &call{model: model, responses: model.Answer(Copies(inputs))}
	at := h.Now + model.Delay
	c.end = at
	for range c.responses {
		c.times = append(c.times, at)
		c.end = at
		at += model.Interval
	}
	if model.IsStreaming && len(c.responses) > 0 {
		c.end = at
	}
	until, fault := h.endOfRequest()
	if timeout >= 0 && (fault == nil || h.Now+timeout < until) {
		until = h.Now + timeout
		fault = failure(contract.Deadline, "model \""+model.Name+":"+model.Version+"\" did not answer within "+timeout.String())
	}
	if fault != nil && c.end > until {
		kept := 0
		for kept < len(c.times) && c.times[kept] <= until {
			kept++
		}
		c.responses = append(c.responses[:kept:kept], contract.Outcome{Err: fault})
		c.times = append(c.times[:kept:kept], until)
		c.end = until
	}
	handle := newHandle()
	h.calls[handle] = c
	return handle, nil
}

// Call waits for the one response of a model.
func (h *Host) Call(model *Model, inputs []uint32, timeout time.Duration) contract.Outcome {
	if model.IsStreaming {
		return contract.Outcome{Err: severalResponses(model)}
	}
	handle, fault := h.Start(model, inputs, timeout)
	if fault != nil {
		return contract.Outcome{Err: fault}
	}
	defer h.DropCall(handle)
	h.moveTo(h.calls[handle].end)
	outcome, done := h.Outcome(handle)
	if !done {
		_, fault := h.endOfRequest()
		return contract.Outcome{Err: fault}
	}
	return outcome
}

// Outcome returns the outcome of a call, once.
func (h *Host) Outcome(handle uint32) (contract.Outcome, bool) {
	c := h.calls[handle]
	if c.isTaken || c.nextAt() > h.Now {
		return contract.Outcome{}, false
	}
	c.isTaken = true
	if c.model.IsStreaming {
		return contract.Outcome{Err: severalResponses(c.model)}, true
	}
	if len(c.responses) == 0 {
		return contract.Outcome{Err: failure(contract.Failed, "the model returned no response")}, true
	}
	outcome := c.responses[0]
	c.responses, c.times = c.responses[1:], c.times[1:]
	return outcome, true
}

// Next waits for the next response of a call.
func (h *Host) Next(handle uint32) (contract.Outcome, bool) {
	c := h.calls[handle]
	h.moveTo(c.nextAt())
	if len(c.responses) == 0 {
		return contract.Outcome{}, false
	}
	c.isTaken = true
	outcome := c.responses[0]
	c.responses, c.times = c.responses[1:], c.times[1:]
	if outcome.Err != nil {
		c.responses, c.times, c.end = nil, nil, h.Now
	}
	return outcome, true
}

// DropCall cancels a call.
func (h *Host) DropCall(handle uint32) {
	delete(h.calls, handle)
}

// WaitAny moves the clock to when a call has a response or has ended. A negative timeout is none.
func (h *Host) WaitAny(handles []uint32, timeout time.Duration) (int, bool) {
	first := -1
	for i, handle := range handles {
		if first < 0 || h.calls[handle].nextAt() < h.calls[handles[first]].nextAt() {
			first = i
		}
	}
	if first >= 0 {
		at := h.calls[handles[first]].nextAt()
		if timeout < 0 || at <= h.Now+timeout {
			h.moveTo(at)
			return first, true
		}
	}
	h.moveTo(h.Now + max(0, timeout))
	return 0, false
}

// Answer answers the current request.
func (h *Host) Answer(outputs []uint32) *contract.Error {
	switch {
	case h.IsBatch:
		return failure(contract.Unsupported, "a batch cannot be answered early")
	case h.HasSent:
		return failure(contract.Unsupported, "the request was answered already")
	}
	h.Early, h.HasSent = Copies(outputs), true
	return nil
}

// moveTo moves the clock, at most to the end of the current request. It never goes back.
func (h *Host) moveTo(at time.Duration) {
	if end, fault := h.endOfRequest(); fault != nil {
		at = min(at, end)
	}
	h.Now = max(h.Now, at)
}

// endOfRequest returns when the current request ends, with the error for what waits then. The error
// is nil if it does not end.
func (h *Host) endOfRequest() (time.Duration, *contract.Error) {
	switch {
	case h.Request == nil:
		return 0, nil
	case h.Request.Cancelled:
		return 0, failure(contract.Cancelled, "the client has disconnected")
	case h.Request.Deadline >= 0:
		return h.Request.Deadline, failure(contract.Deadline, "the deadline of the request has passed")
	}
	return 0, nil
}

func (c *call) nextAt() time.Duration {
	if len(c.times) > 0 {
		return c.times[0]
	}
	return c.end
}

func severalResponses(model *Model) *contract.Error {
	return failure(contract.Unsupported, "model \""+model.Name+":"+model.Version+
		"\" returns any number of responses; start a call and read its responses one at a time")
}

func failure(kind contract.Kind, message string) *contract.Error {
	return &contract.Error{Kind: kind, Message: message}
}
