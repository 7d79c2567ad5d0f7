// Package hostlertest stands in for the host in unit tests of plugins.
//
//	func TestDoubles(t *testing.T) {
//		host := hostlertest.New(t)
//		outputs, err := host.Predict(Double{}, hostlertest.Tensor(t, "x", []int64{2}, []float32{1, 2.5}))
//		if err != nil {
//			t.Fatal(err)
//		}
//		if y := hostlertest.Values[float32](t, outputs, "y"); y[1] != 5 {
//			t.Errorf("got %v", y)
//		}
//	}
//
// The functions that call a plugin check what a host checks: inputs and outputs against the metadata,
// that an answer is JSON. A panic of the plugin is the error Failed, as in a component, with its
// traceback in Log.
//
// # Time
//
// The clock of a host is simulated. It begins at 0 and moves only when the plugin waits. Calls to
// models take no time unless [Model.Delay] is set. The package time is not affected.
//
// # What differs from a host
//
// Limits of memory, log, state and time for computing are not enforced, and HTTP requests are not
// compared with the manifest. Errors of host calls reach the test as they are; a host converts them,
// so that a client does not receive an error about a call that it did not make.
package hostlertest

import (
	"hostler"
	"hostler/internal/contract"
	"hostler/internal/standin"
	"testing"
	"time"
)

// Host is a host with one plugin. Fields may be set until the plugin is called.
type Host struct {
	// Config has what the manifest sets under [plugins.<name>.config].
	Config map[string]string
	// Assets has the files under [plugins.<name>.assets].
	Assets map[string][]byte
	// HTTP answers the requests of hostler.Fetch.
	HTTP func(hostler.HTTPRequest) (*hostler.HTTPResponse, error)
	// Request is what the next request consists of.
	Request Request

	t    testing.TB
	data *standin.Host
	last *standin.Request
}

// Request is what a client and the host set of a request.
type Request struct {
	// ID, Model and Version are "request", "model" and "1" if they are empty.
	ID, Model, Version string
	// Parameters are bool, int64, float64 and string.
	Parameters map[string]any
	// Note is what preprocess has stored, for a test of postprocess.
	Note []byte
	// Timeout is the time until the deadline; 0 is none.
	Timeout   time.Duration
	Cancelled bool
}

// New returns a host that is in use until the end of the test, or until another one is made. Tests
// with a host cannot be parallel.
func New(t testing.TB) *Host {
	t.Helper()
	// The testing package refuses t.Parallel in a test that sets a variable.
	t.Setenv("HOSTLER_TEST", "1")
	data := standin.NewHost()
	standin.Use(data)
	t.Cleanup(func() {
		if standin.Current() == data {
			standin.Use(nil)
		}
	})
	return &Host{Config: data.Config, Assets: data.Assets, t: t, data: data}
}

// begin begins a request and returns its handle.
func (h *Host) begin() uint32 {
	h.data.Config, h.data.Assets, h.data.HTTP = h.Config, h.Assets, h.fetch
	h.data.Early, h.data.HasSent, h.data.IsBatch = nil, false, false
	return h.add(h.Request)
}

func (h *Host) add(request Request) uint32 {
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	h.last = &standin.Request{
		ID: or(request.ID, "request"), Model: or(request.Model, "model"), Version: or(request.Version, "1"),
		Parameters: request.Parameters, Note: request.Note, Deadline: -1, Cancelled: request.Cancelled,
	}
	if request.Timeout > 0 {
		h.last.Deadline = h.data.Now + request.Timeout
	}
	for name, value := range request.Parameters {
		switch value := value.(type) {
		case bool, int64, float64, string:
		case int:
			request.Parameters[name] = int64(value)
		default:
			h.t.Fatalf("the parameter %q is a %T; a parameter is a bool, int64, float64 or string", name, value)
		}
	}
	return h.data.AddRequest(h.last)
}

// Predict calls a model with inputs, which remain the test's.
func (h *Host) Predict(plugin hostler.Model, inputs ...*hostler.Tensor) ([]*hostler.Tensor, error) {
	request := h.begin()
	metadata := plugin.Metadata()
	var optional []string
	if model, is := plugin.(hostler.OptionalModel); is {
		optional = model.OptionalInputs()
	}
	handles := hostler.LendTensors(key, inputs)
	if err := standin.CheckInputs(metadata.Inputs, optional, handles); err != nil {
		return nil, err
	}
	outcome := hostler.CallPredict(key, plugin, request, standin.Copies(handles))
	if outcome.Err != nil {
		return nil, outcome.Err
	}
	if err := standin.CheckOutputs(metadata.Outputs, outcome.Tensors); err != nil {
		return nil, err
	}
	return h.adopted(outcome.Tensors), nil
}

// Preprocess calls a transformer. The tensors of the payload remain the test's. specs are the inputs
// of the model, if what it returns should be checked.
func (h *Host) Preprocess(plugin hostler.Transformer, payload hostler.Payload, specs ...hostler.TensorSpec) ([]*hostler.Tensor, error) {
	request := h.begin()
	raw, fault := hostler.RawPayload(key, payload)
	if fault != nil {
		return nil, fault
	}
	if raw.Case == contract.PayloadTensors {
		raw.Tensors = standin.Copies(raw.Tensors)
	}
	outcome := hostler.CallPreprocess(key, plugin, request, raw)
	if outcome.Err != nil {
		return nil, outcome.Err
	}
	if len(specs) > 0 {
		if err := standin.CheckInputs(specs, nil, outcome.Tensors); err != nil {
			return nil, err
		}
	}
	return h.adopted(outcome.Tensors), nil
}

// Postprocess calls a transformer with outputs of the model, which remain the test's.
func (h *Host) Postprocess(plugin hostler.Transformer, outputs ...*hostler.Tensor) (hostler.Payload, error) {
	request := h.begin()
	raw, err := hostler.CallPostprocess(key, plugin, request, standin.Copies(hostler.LendTensors(key, outputs)))
	if err != nil {
		return nil, err
	}
	if raw.Case == contract.PayloadJSON && !isJSON(raw.Data) {
		return nil, hostler.NewError(hostler.Failed, "the plugin returned text that is not JSON: "+string(raw.Data))
	}
	return hostler.PayloadFrom(key, raw), nil
}

// Transform calls preprocess, a model and postprocess. The note of preprocess reaches postprocess.
func (h *Host) Transform(plugin hostler.Transformer, payload hostler.Payload, model Answer) (hostler.Payload, error) {
	inputs, err := h.Preprocess(plugin, payload)
	if err != nil {
		return nil, err
	}
	outputs, err := model(inputs)
	if err != nil {
		return nil, err
	}
	before := h.Request.Note
	h.Request.Note = h.last.Note
	defer func() { h.Request.Note = before }()
	return h.Postprocess(plugin, outputs...)
}

// Submit calls an executor with a model that was added as Model and inputs, which remain the test's.
func (h *Host) Submit(plugin hostler.Executor, model string, inputs ...*hostler.Tensor) ([]*hostler.Tensor, error) {
	h.t.Helper()
	request := h.begin()
	inner := h.find(model)
	outcome := hostler.CallSubmit(key, plugin, request, standin.Copies(hostler.LendTensors(key, inputs)), inner)
	if outcome.Err != nil {
		return nil, outcome.Err
	}
	return h.adopted(outcome.Tensors), nil
}

// SubmitBatch calls an executor for several requests, each with its inputs.
func (h *Host) SubmitBatch(plugin hostler.Executor, model string, inputs ...[]*hostler.Tensor) ([]hostler.Outcome, error) {
	h.t.Helper()
	requests := make([]uint32, len(inputs))
	lists := make([][]uint32, len(inputs))
	for i, list := range inputs {
		if i == 0 {
			requests[i] = h.begin()
		} else {
			requests[i] = h.add(h.Request)
		}
		lists[i] = standin.Copies(hostler.LendTensors(key, list))
	}
	h.data.IsBatch = true
	raw, err := hostler.CallSubmitBatch(key, plugin, requests, lists, h.find(model))
	if err != nil {
		return nil, err
	}
	outcomes := make([]hostler.Outcome, len(raw))
	for i, outcome := range raw {
		if outcome.Err != nil {
			outcomes[i].Err = outcome.Err
		} else {
			outcomes[i].Tensors = h.adopted(outcome.Tensors)
		}
	}
	return outcomes, nil
}

func (h *Host) adopted(handles []uint32) []*hostler.Tensor {
	return hostler.AdoptTensors(key, handles)
}

func (h *Host) fetch(raw contract.HTTPRequest) (contract.HTTPResponse, *contract.Error) {
	if h.HTTP == nil {
		return contract.HTTPResponse{}, hostler.NewError(hostler.Unsupported, "the test has no HTTP server: set Host.HTTP")
	}
	request := hostler.HTTPRequest{Method: raw.Method, URL: raw.URL, Headers: raw.Headers, Body: raw.Body}
	if raw.TimeoutMS > 0 {
		request.Timeout = time.Duration(raw.TimeoutMS) * time.Millisecond
	}
	response, err := h.HTTP(request)
	if err != nil {
		return contract.HTTPResponse{}, hostler.ContractError(key, err)
	}
	return contract.HTTPResponse{Status: response.Status, Headers: response.Headers, Body: response.Body}, nil
}
