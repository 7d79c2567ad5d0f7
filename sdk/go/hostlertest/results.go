package hostlertest

import (
	"encoding/json"
	"errors"
	"hostler"
	"hostler/internal/contract"
	"hostler/internal/standin"
	"testing"
	"time"
)

var key contract.Key

// LogLine is a line of the log.
type LogLine = standin.Line

// Log returns the lines that the plugin has written with hostler.Log, and those of panics.
func (h *Host) Log() []LogLine {
	return h.data.Log
}

// Note returns the note of the last request.
func (h *Host) Note() []byte {
	return h.last.Note
}

// Early returns what the last request was answered with by hostler.Answer, and whether it was.
func (h *Host) Early() ([]*hostler.Tensor, bool) {
	return h.adopted(standin.Copies(h.data.Early)), h.data.HasSent
}

// Now returns the time of the host's clock.
func (h *Host) Now() time.Duration {
	return h.data.Now
}

// Advance moves the clock, for example past the time to live of an entry of the state.
func (h *Host) Advance(duration time.Duration) {
	h.data.Now += duration
}

// Events returns what hostler.Metrics.Count has added up under a name.
func (h *Host) Events(name string) uint64 {
	return h.data.Events[name]
}

// Value returns what hostler.Metrics.Set has set under a name, and whether it has.
func (h *Host) Value(name string) (float64, bool) {
	value, known := h.data.Values[name]
	return value, known
}

// Metric returns the value of a Counter or a Gauge for the values of its labels, and whether it was
// changed.
func (h *Host) Metric(name string, values ...string) (float64, bool) {
	metric := h.data.Metrics[name]
	if metric == nil {
		return 0, false
	}
	value, known := metric.Values[standin.SeriesKey(values)]
	return value, known
}

// Observations returns what a Histogram has observed for the values of its labels.
func (h *Host) Observations(name string, values ...string) []float64 {
	metric := h.data.Metrics[name]
	if metric == nil {
		return nil
	}
	return metric.Observations[standin.SeriesKey(values)]
}

// Tensor creates a tensor, or ends the test.
func Tensor[T hostler.Element](t testing.TB, name string, shape []int64, elements []T) *hostler.Tensor {
	t.Helper()
	tensor, err := hostler.NewTensor(name, shape, elements)
	if err != nil {
		t.Fatal(err)
	}
	return tensor
}

// Values returns the elements of the tensor with a name, or ends the test.
func Values[T hostler.Element](t testing.TB, tensors []*hostler.Tensor, name string) []T {
	t.Helper()
	tensor, err := hostler.Named(tensors, name)
	if err != nil {
		t.Fatal(err)
	}
	elements, err := hostler.Elements[T](tensor)
	if err != nil {
		t.Fatal(err)
	}
	return elements
}

// Fails ends the test unless an error is one of the contract with this kind and this field, which may
// be empty.
func Fails(t testing.TB, err error, kind hostler.ErrorKind, field string) {
	t.Helper()
	var own *hostler.Error
	if !errors.As(err, &own) {
		t.Fatalf("expected an error of the kind %v, got %v", kind, err)
	}
	if own.Kind != kind || own.Field != field {
		t.Fatalf("expected the kind %v and the field %q, got %v and %q: %v", kind, field, own.Kind, own.Field, err)
	}
}

// JSON returns a payload with a value as JSON, or ends the test.
func JSON(t testing.TB, value any) hostler.JSON {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Decode writes the JSON of a payload to what value points to, or ends the test.
func Decode(t testing.TB, payload hostler.Payload, value any) {
	t.Helper()
	text, is := payload.(hostler.JSON)
	if !is {
		t.Fatalf("expected JSON, got %T", payload)
	}
	if err := json.Unmarshal(text, value); err != nil {
		t.Fatal(err)
	}
}

func isJSON(text []byte) bool {
	return json.Valid(text)
}
