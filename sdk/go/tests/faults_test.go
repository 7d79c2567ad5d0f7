package tests

import (
	"errors"
	"fmt"
	"hostler"
	"hostler/hostlertest"
	"hostler/internal/standin"
	"strings"
	"testing"
)

// script is a model whose predict is a function.
type script func(request *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error)

func (script) Metadata() hostler.Metadata {
	spec := []hostler.TensorSpec{hostler.Spec("x", hostler.FP32, -1)}
	return hostler.Metadata{Inputs: spec, Outputs: spec}
}

func (s script) Predict(request *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
	return s(request, inputs)
}

func predict(t *testing.T, host *hostlertest.Host, body script) ([]*hostler.Tensor, error) {
	t.Helper()
	return host.Predict(body, hostlertest.Tensor(t, "x", []int64{1}, []float32{1}))
}

func TestAPanicIsAnError(t *testing.T) {
	host := hostlertest.New(t)
	_, err := predict(t, host, func(*hostler.Request, []*hostler.Tensor) ([]*hostler.Tensor, error) {
		var list []int
		return nil, errors.New(fmt.Sprint(list[3]))
	})
	hostlertest.Fails(t, err, hostler.Failed, "")
	if !strings.HasPrefix(err.Error(), "model.predict panicked: runtime error: index out of range [3]") {
		t.Errorf("got %v", err)
	}
	if log := host.Log(); len(log) != 1 || log[0].Level.String() != "ERROR" {
		t.Errorf("got the log %v", log)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	host := hostlertest.New(t)
	for _, one := range []struct {
		err     error
		kind    hostler.ErrorKind
		field   string
		message string
	}{
		{errors.New("plain"), hostler.Failed, "", "plain"},
		{hostler.NewError(hostler.Overloaded, "later"), hostler.Overloaded, "", "later"},
		{hostler.Invalid("a", "too wide"), hostler.InvalidInput, "a", "too wide"},
		{fmt.Errorf("row 3: %w", hostler.Invalid("a", "too wide")), hostler.InvalidInput, "a", "row 3: a: too wide"},
	} {
		_, err := predict(t, host, func(*hostler.Request, []*hostler.Tensor) ([]*hostler.Tensor, error) { return nil, one.err })
		hostlertest.Fails(t, err, one.kind, one.field)
		var own *hostler.Error
		if errors.As(err, &own); own.Message != one.message {
			t.Errorf("got %q", own.Message)
		}
	}
}

// check returns what hostler.Invalid returns. A nil pointer of this type is an error that is not nil.
func check(isValid bool) *hostler.Error {
	if isValid {
		return nil
	}
	return hostler.Invalid("x", "too wide")
}

func TestANilErrorPointerNamesTheMistake(t *testing.T) {
	host := hostlertest.New(t)
	_, err := predict(t, host, func(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		return inputs, check(true)
	})
	hostlertest.Fails(t, err, hostler.Failed, "")
	if !strings.Contains(err.Error(), "the error is a nil *hostler.Error") {
		t.Errorf("got %v", err)
	}
}

// rude is a value to panic with, whose own method panics.
type rude struct{ text *string }

func (r rude) Error() string { return *r.text }

func TestAPanicWithAValueThatPanicsIsAnError(t *testing.T) {
	host := hostlertest.New(t)
	_, err := predict(t, host, func(*hostler.Request, []*hostler.Tensor) ([]*hostler.Tensor, error) { panic(rude{}) })
	hostlertest.Fails(t, err, hostler.Failed, "")
	if !strings.HasPrefix(err.Error(), "model.predict panicked: a value that cannot be described") {
		t.Errorf("got %v", err)
	}
}

func TestMisuseIsAnError(t *testing.T) {
	host := hostlertest.New(t)
	var old *hostler.Tensor
	var request *hostler.Request
	if _, err := predict(t, host, func(r *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		old, request = inputs[0], r
		return inputs, nil
	}); err != nil {
		t.Fatal(err)
	}
	for want, body := range map[string]script{
		"it was returned to the host": func(_ *hostler.Request, _ []*hostler.Tensor) ([]*hostler.Tensor, error) {
			old.Name()
			return nil, nil
		},
		"returned a tensor that must not be used": func(_ *hostler.Request, _ []*hostler.Tensor) ([]*hostler.Tensor, error) {
			return []*hostler.Tensor{old}, nil
		},
		"the call that it belongs to has ended": func(_ *hostler.Request, _ []*hostler.Tensor) ([]*hostler.Tensor, error) {
			request.ID()
			return nil, nil
		},
		"tensor 0 is nil": func(_ *hostler.Request, _ []*hostler.Tensor) ([]*hostler.Tensor, error) {
			return []*hostler.Tensor{nil}, nil
		},
		"\"x\" twice": func(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
			return []*hostler.Tensor{inputs[0], inputs[0]}, nil
		},
		"it was closed": func(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
			inputs[0].Close()
			return nil, errors.New(inputs[0].Name())
		},
	} {
		_, err := predict(t, host, body)
		hostlertest.Fails(t, err, hostler.Failed, "")
		if !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q, got %v", want, err)
		}
	}
}

func TestTensorsAreReleasedAtTheEndOfTheCall(t *testing.T) {
	host := hostlertest.New(t)
	input := hostlertest.Tensor(t, "x", []int64{1}, []float32{1})
	before := standin.CountTensors()
	var kept *hostler.Tensor
	outputs, err := host.Predict(script(func(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		kept = inputs[0].Renamed("kept").Keep()
		for range 10 {
			inputs[0].Renamed("z")
		}
		return []*hostler.Tensor{inputs[0].Renamed("x")}, nil
	}), input)
	if err != nil {
		t.Fatal(err)
	}
	if now := standin.CountTensors(); now != before+2 || kept.Name() != "kept" {
		t.Errorf("%d tensors were not released", now-before-2)
	}
	kept.Close()
	outputs[0].Close()
	if now := standin.CountTensors(); now != before {
		t.Errorf("%d tensors were not released", now-before)
	}
}

func TestAHostChecksInputsAndOutputs(t *testing.T) {
	host := hostlertest.New(t)
	_, err := host.Predict(script(nil))
	hostlertest.Fails(t, err, hostler.InvalidInput, "x")
	_, err = predict(t, host, func(*hostler.Request, []*hostler.Tensor) ([]*hostler.Tensor, error) {
		return []*hostler.Tensor{hostlertest.Tensor(t, "q", []int64{1}, []float32{1})}, nil
	})
	hostlertest.Fails(t, err, hostler.Failed, "")
	if !strings.HasPrefix(err.Error(), `the plugin returned the output "q" (FP32 [1]), which its metadata does not declare`) {
		t.Errorf("got %v", err)
	}
}
