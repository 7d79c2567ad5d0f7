package hostler

import "hostler/internal/host"

// scope has the handles that a call of the plugin releases at its end.
type scope struct {
	tensors     []*Tensor
	requests    []*Request
	callables   []*Callable
	invocations []*Invocation
}

// current is the scope of the call in progress. A component has one call at a time, and a test too:
// see hostlertest.New. Outside of a call, as in init, it is nil, and what is created stays.
var current *scope

const (
	whyReturned = "it was returned to the host; return t.Renamed(t.Name()) to keep the tensor t"
	whyEnded    = "the call that it belongs to has ended; t.Keep() keeps a tensor t for later calls"
	whyClosed   = "it was closed"
)

func (s *scope) end() {
	// Calls in flight first: their inputs may be tensors of this scope.
	for _, invocation := range s.invocations {
		invocation.release(whyEnded)
	}
	for _, tensor := range s.tensors {
		tensor.release(whyEnded)
	}
	for _, callable := range s.callables {
		if callable.handle != 0 {
			host.CallableDrop(callable.handle)
			callable.handle = 0
		}
	}
	for _, request := range s.requests {
		if request.handle != 0 {
			host.RequestDrop(request.handle)
			request.handle = 0
		}
	}
}

// misuse is what a function panics with if it was called with a handle that must not be used. The
// caller receives it as the error Failed.
type misuse string

func (m misuse) Error() string {
	return string(m)
}

func newTensor(handle uint32) *Tensor {
	tensor := &Tensor{handle: handle, scope: current}
	if current != nil {
		current.tensors = append(current.tensors, tensor)
	}
	return tensor
}

func newTensors(handles []uint32) []*Tensor {
	tensors := make([]*Tensor, len(handles))
	for i, handle := range handles {
		tensors[i] = newTensor(handle)
	}
	return tensors
}

func newRequest(handle uint32) *Request {
	request := &Request{handle: handle}
	if current != nil {
		current.requests = append(current.requests, request)
	}
	return request
}

func newCallable(handle uint32) *Callable {
	callable := &Callable{handle: handle}
	if current != nil {
		current.callables = append(current.callables, callable)
	}
	return callable
}

func newInvocation(handle uint32) *Invocation {
	invocation := &Invocation{handle: handle}
	if current != nil {
		current.invocations = append(current.invocations, invocation)
	}
	return invocation
}

// lent returns the handles of tensors that remain the plugin's.
func lent(tensors []*Tensor, what string) []uint32 {
	handles := make([]uint32, len(tensors))
	for i, tensor := range tensors {
		handles[i] = tensor.use(what)
	}
	return handles
}

// given returns the handles of tensors that become the host's. Nothing is given if there is an
// error.
func given(what string, lists ...[]*Tensor) ([][]uint32, *Error) {
	seen := map[*Tensor]bool{}
	for _, list := range lists {
		for i, tensor := range list {
			switch {
			case tensor == nil:
				return nil, NewError(Failed, what+" returned a list in which tensor "+decimal(i)+" is nil")
			case tensor.handle == 0:
				return nil, NewError(Failed, what+" returned a tensor that must not be used: "+tensor.why)
			case seen[tensor]:
				return nil, NewError(Failed, what+" returned the tensor \""+tensor.Name()+"\" twice; return t.Renamed(t.Name()) for the second one")
			}
			seen[tensor] = true
		}
	}
	all := make([][]uint32, len(lists))
	for i, list := range lists {
		all[i] = make([]uint32, len(list))
		for j, tensor := range list {
			all[i][j] = tensor.handle
			tensor.handle, tensor.why = 0, whyReturned
		}
	}
	return all, nil
}
