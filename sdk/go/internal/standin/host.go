package standin

import (
	"hostler/internal/contract"
	"sort"
	"time"
)

// Host is what the host of a test keeps.
type Host struct {
	Config map[string]string
	Assets map[string][]byte
	// Models are by name and version: plus:1.
	Models map[string]*Model
	HTTP   func(contract.HTTPRequest) (contract.HTTPResponse, *contract.Error)

	Request  *Request
	Now      time.Duration
	Log      []Line
	State    map[string]Entry
	Counters map[string]int64
	Events   map[string]uint64
	Values   map[string]float64
	Metrics  map[string]*Metric
	// Early is what Answer has sent.
	Early   []uint32
	HasSent bool
	IsBatch bool

	requests  map[uint32]*Request
	callables map[uint32]*Model
	calls     map[uint32]*call
	metrics   map[uint32]*Metric
}

// Line is a line of the log.
type Line struct {
	Level   contract.Level
	Message string
}

// Request is a request of a test.
type Request struct {
	ID, Model, Version string
	Parameters         map[string]any
	Note               []byte
	// Deadline is a time of the host's clock; negative is none.
	Deadline  time.Duration
	Cancelled bool
}

// Entry is an entry of the state. It has bytes or tensors.
type Entry struct {
	Value     []byte
	Tensors   []uint32
	IsTensors bool
	// Until is a time of the host's clock; negative is for ever.
	Until time.Duration
}

var current *Host

// generation counts the hosts of a process.
var generation int

// Use makes a host the one that plugins call. nil is none.
func Use(host *Host) {
	current = host
	generation++
}

// Generation returns how many hosts there were.
func Generation() int {
	return generation
}

// NewHost returns an empty host.
func NewHost() *Host {
	return &Host{
		Config: map[string]string{}, Assets: map[string][]byte{}, Models: map[string]*Model{},
		State: map[string]Entry{}, Counters: map[string]int64{},
		Events: map[string]uint64{}, Values: map[string]float64{}, Metrics: map[string]*Metric{},
		requests: map[uint32]*Request{}, callables: map[uint32]*Model{}, calls: map[uint32]*call{}, metrics: map[uint32]*Metric{},
	}
}

// Current returns the host in use.
func Current() *Host {
	if current == nil {
		panic("hostler: there is no host; begin the test with hostlertest.New(t)")
	}
	return current
}

// AddRequest makes a request the current one, and returns its handle.
func (h *Host) AddRequest(request *Request) uint32 {
	handle := newHandle()
	h.requests[handle] = request
	h.Request = request
	return handle
}

// RequestOf returns the request with a handle.
func (h *Host) RequestOf(handle uint32) *Request {
	return h.requests[handle]
}

// DropRequest releases a handle.
func (h *Host) DropRequest(handle uint32) {
	delete(h.requests, handle)
}

// TimeLeft returns the time until the deadline of a request.
func (h *Host) TimeLeft(request *Request) (uint64, bool) {
	if request.Deadline < 0 {
		return 0, false
	}
	return uint64(max(0, request.Deadline-h.Now).Milliseconds()), true
}

// Entry returns an entry of the state that has not expired.
func (h *Host) Entry(key string) (Entry, bool) {
	entry, known := h.State[key]
	if !known || entry.Until >= 0 && entry.Until <= h.Now {
		return Entry{}, false
	}
	return entry, true
}

// SetEntry sets an entry of the state. The time to live is in milliseconds.
func (h *Host) SetEntry(key string, entry Entry, ttlMS int64) *contract.Error {
	if len(key) > 1024 {
		return &contract.Error{Kind: contract.TooLarge, Message: "a key of the state has at most 1024 bytes"}
	}
	entry.Until = -1
	if ttlMS >= 0 {
		entry.Until = h.Now + time.Duration(ttlMS)*time.Millisecond
	}
	h.State[key] = entry
	return nil
}

// Asset returns an asset.
func (h *Host) Asset(name string) ([]byte, *contract.Error) {
	data, known := h.Assets[name]
	if !known {
		return nil, &contract.Error{Kind: contract.NotFound, Message: "no asset \"" + name + "\""}
	}
	return data, nil
}

// AssetNames returns the names of all assets.
func (h *Host) AssetNames() []string {
	names := make([]string, 0, len(h.Assets))
	for name := range h.Assets {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
