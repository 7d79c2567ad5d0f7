package hostler

import (
	"hostler/internal/host"
	"time"
)

// Request is the request that a call belongs to. It must not be used after the function that has
// received it.
type Request struct {
	handle uint32
}

func (r *Request) use() uint32 {
	if r == nil || r.handle == 0 {
		panic(misuse("this request must not be used: the call that it belongs to has ended"))
	}
	return r.handle
}

// ID returns the id of the request: the caller's, or one that the host has generated.
func (r *Request) ID() string {
	return host.RequestID(r.use())
}

// Model returns the name of the requested model.
func (r *Request) Model() string {
	return host.RequestModel(r.use())
}

// Version returns the version of the requested model.
func (r *Request) Version() string {
	return host.RequestVersion(r.use())
}

// TimeLeft returns the time until this call is stopped, in whole milliseconds, and whether there is
// a limit.
func (r *Request) TimeLeft() (time.Duration, bool) {
	left, limited := host.RequestTimeLeft(r.use())
	return milliseconds(left), limited
}

// Cancelled returns whether the client has disconnected or the call was cancelled.
func (r *Request) Cancelled() bool {
	return host.RequestCancelled(r.use())
}

// Note returns the bytes that an earlier call for the same request has stored with SetNote.
func (r *Request) Note() []byte {
	return host.RequestNote(r.use())
}

// SetNote stores the note, at most 1 MiB. More ends the instance.
func (r *Request) SetNote(data []byte) {
	host.RequestSetNote(r.use(), data)
}

// Parameter returns a parameter: a bool, int64, float64 or string, and nil if the request has none
// with this name.
func (r *Request) Parameter(name string) any {
	return host.RequestParameter(r.use(), name)
}

// ParameterNames returns the names of all parameters.
func (r *Request) ParameterNames() []string {
	return host.RequestParameterNames(r.use())
}

// Flag returns a boolean parameter; false if there is none. The error for one of another type is
// InvalidInput with the field parameters.<name>, as of the following functions.
func (r *Request) Flag(name string) (bool, error) {
	switch value := r.Parameter(name).(type) {
	case nil:
		return false, nil
	case bool:
		return value, nil
	}
	return false, wrongParameter(name, "true or false")
}

// Text returns a text parameter, and whether there is one.
func (r *Request) Text(name string) (string, bool, error) {
	switch value := r.Parameter(name).(type) {
	case nil:
		return "", false, nil
	case string:
		return value, true, nil
	}
	return "", false, wrongParameter(name, "a text")
}

// Integer returns an integer parameter, and whether there is one.
func (r *Request) Integer(name string) (int64, bool, error) {
	switch value := r.Parameter(name).(type) {
	case nil:
		return 0, false, nil
	case int64:
		return value, true, nil
	}
	return 0, false, wrongParameter(name, "a whole number")
}

// Number returns a number parameter, and whether there is one. Integers are converted.
func (r *Request) Number(name string) (float64, bool, error) {
	switch value := r.Parameter(name).(type) {
	case nil:
		return 0, false, nil
	case float64:
		return value, true, nil
	case int64:
		return float64(value), true, nil
	}
	return 0, false, wrongParameter(name, "a number")
}

func wrongParameter(name, expected string) *Error {
	return Invalid("parameters."+name, "parameter \""+name+"\": expected "+expected)
}

// milliseconds returns a duration, which cannot be longer than 292 years.
func milliseconds(count uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(count, most)) * time.Millisecond
}
