package hostler

import (
	"hostler/internal/contract"
	"hostler/internal/host"
	"iter"
	"time"
)

// NoTimeout makes a wait last until the deadline of the request at most. Any other negative duration is
// like 0.
const NoTimeout time.Duration = -1

// Models gives access to models other than the requested one.
var Models ModelRegistry

// ModelRegistry is the type of [Models].
type ModelRegistry struct{}

// Get returns the only version of a model, or the one that the routing rule chooses for this request.
// The error is NotFound if the policy of the request has no such model.
func (ModelRegistry) Get(name string) (*Callable, error) {
	return getModel(name, "")
}

// GetVersion returns a version of a model.
func (ModelRegistry) GetVersion(name, version string) (*Callable, error) {
	return getModel(name, version)
}

func getModel(name, version string) (*Callable, error) {
	handle, err := host.ModelsGet(name, version)
	if err != nil {
		return nil, err
	}
	return newCallable(handle), nil
}

// Callable is a model that can be called, on its own executor and without its transformer. It must
// not be used after the function of the plugin that has received it.
type Callable struct {
	handle uint32
}

func (c *Callable) use() uint32 {
	if c == nil || c.handle == 0 {
		panic(misuse("this model must not be used: the call that it belongs to has ended"))
	}
	return c.handle
}

// Model returns the name of the model.
func (c *Callable) Model() string {
	return host.CallableModel(c.use())
}

// Version returns the version of the model.
func (c *Callable) Version() string {
	return host.CallableVersion(c.use())
}

// Streaming returns whether the model has 0..n responses instead of exactly one.
func (c *Callable) Streaming() bool {
	return host.CallableStreaming(c.use())
}

// Call calls the model and waits for its one response, at most until the deadline of the request. The
// inputs remain the plugin's; their bytes are not copied. The error is that of the model, or
// Overloaded, DeadlineExceeded, Cancelled, InvalidInput for inputs that do not fit, and Unsupported
// for a model with 0..n responses.
func (c *Callable) Call(inputs []*Tensor) ([]*Tensor, error) {
	return c.CallWithin(inputs, NoTimeout)
}

// CallWithin is like Call, but waits for a time at most, in microseconds. After that the error is
// DeadlineExceeded.
func (c *Callable) CallWithin(inputs []*Tensor, timeout time.Duration) ([]*Tensor, error) {
	return tensorsFrom(host.CallableCall(c.use(), lent(inputs, "Callable.Call"), microseconds(timeout)))
}

// Start starts a call and returns immediately. An error, such as Overloaded, means that the call was
// not admitted.
func (c *Callable) Start(inputs []*Tensor) (*Invocation, error) {
	return c.StartWithin(inputs, NoTimeout)
}

// StartWithin is like Start, but the call fails unless all responses arrive within a time.
func (c *Callable) StartWithin(inputs []*Tensor, timeout time.Duration) (*Invocation, error) {
	handle, err := host.CallableStart(c.use(), lent(inputs, "Callable.Start"), microseconds(timeout))
	if err != nil {
		return nil, err
	}
	return newInvocation(handle), nil
}

// Invocation is a call in flight. It is cancelled by Cancel, and when the function of the plugin
// returns.
type Invocation struct {
	handle uint32
	why    string
}

func (i *Invocation) use() uint32 {
	if i == nil || i.handle == 0 {
		why := "it is nil"
		if i != nil {
			why = i.why
		}
		panic(misuse("this call must not be used: " + why))
	}
	return i.handle
}

func (i *Invocation) release(why string) {
	if i.handle != 0 {
		host.InvocationDrop(i.handle)
		i.handle, i.why = 0, why
	}
}

// Outcome returns the outcome of the call, once. done is false while the call is in flight, and
// afterwards.
func (i *Invocation) Outcome() (outputs []*Tensor, done bool, err error) {
	outcome, done := host.InvocationOutcome(i.use())
	if !done {
		return nil, false, nil
	}
	outputs, err = tensorsFrom(outcome)
	return outputs, true, err
}

// Wait waits for the outcome of the call, at most until the deadline of the request.
func (i *Invocation) Wait() ([]*Tensor, error) {
	host.WaitAny([]uint32{i.use()}, int64(NoTimeout))
	outputs, done, err := i.Outcome()
	if !done {
		return nil, NewError(Failed, "the outcome of this call was already taken")
	}
	return outputs, err
}

// Responses waits for each response of the call. It ends after the last one and after an error.
func (i *Invocation) Responses() iter.Seq2[[]*Tensor, error] {
	return func(yield func([]*Tensor, error) bool) {
		for {
			outcome, more := host.InvocationNext(i.use())
			if !more || !yield(tensorsFrom(outcome)) {
				return
			}
		}
	}
}

// Cancel cancels the call. Its executor can take another one. Cancelling it again does nothing.
func (i *Invocation) Cancel() {
	if i != nil {
		i.release("it was cancelled")
	}
}

// WaitAny waits until a call has a response or has ended, and returns its index. ok is false after
// the timeout.
func WaitAny(timeout time.Duration, calls ...*Invocation) (index int, ok bool) {
	if len(calls) == 0 && timeout == NoTimeout {
		panic(misuse("WaitAny: without calls it needs a timeout"))
	}
	handles := make([]uint32, len(calls))
	for i, call := range calls {
		handles[i] = call.use()
	}
	return host.WaitAny(handles, microseconds(timeout))
}

// Sleep waits, at most until the deadline of the request. Unlike time.Sleep, it does not occupy a
// thread of the host.
func Sleep(duration time.Duration) {
	host.WaitAny(nil, max(0, duration.Microseconds()))
}

// Answer answers the request now and continues. The client does not wait for the work that follows;
// this work has the same deadline, and what Submit returns is ignored. The tensors remain the
// plugin's. Only for executors, in Submit; the second time, the error is Unsupported.
func Answer(outputs []*Tensor) error {
	if err := host.Answer(lent(outputs, "Answer")); err != nil {
		return err
	}
	return nil
}

func tensorsFrom(outcome contract.Outcome) ([]*Tensor, error) {
	if outcome.Err != nil {
		return nil, outcome.Err
	}
	return newTensors(outcome.Tensors), nil
}

// microseconds returns a timeout for the host. A negative one other than NoTimeout is a time that has
// passed, such as what is left of a deadline: it must not become a wait without an end.
func microseconds(duration time.Duration) int64 {
	if duration == NoTimeout {
		return host.NoTimeout
	}
	return max(0, duration.Microseconds())
}
