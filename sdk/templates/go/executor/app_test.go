package main

import (
	"hostler"
	"hostler/hostlertest"
	"testing"
)

// failing returns a model that fails some times with an error, and then returns its input as y.
func failing(times int, err error) hostlertest.Answer {
	return func(inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		if times--; times >= 0 {
			return nil, err
		}
		return []*hostler.Tensor{inputs[0].Renamed("y")}, nil
	}
}

func TestCallsTheModelAgainIfItFails(t *testing.T) {
	host := hostlertest.New(t)
	host.Model("plus", failing(1, hostler.NewError(hostler.Unavailable, "try again")))
	x := hostlertest.Tensor(t, "x", []int64{1}, []float32{41})
	outputs, err := host.Submit(Retry{}, "plus", x)
	if err != nil {
		t.Fatal(err)
	}
	if y := hostlertest.Values[float32](t, outputs, "y"); y[0] != 41 || host.Events("again") != 1 {
		t.Errorf("got %v after %d failures", y, host.Events("again"))
	}
}

func TestConfigSetsTheNumberOfAttempts(t *testing.T) {
	host := hostlertest.New(t)
	host.Config["attempts"] = "3"
	host.Model("plus", failing(3, hostler.NewError(hostler.Failed, "broken")))
	_, err := host.Submit(Retry{}, "plus", hostlertest.Tensor(t, "x", []int64{1}, []float32{41}))
	hostlertest.Fails(t, err, hostler.Failed, "")
	if calls := len(host.Calls("plus")); calls != 3 {
		t.Errorf("got %d calls", calls)
	}
}

func TestDoesNotRepeatAMistakeOfTheCaller(t *testing.T) {
	host := hostlertest.New(t)
	host.Model("plus", failing(1, hostler.Invalid("x", "too large")))
	_, err := host.Submit(Retry{}, "plus", hostlertest.Tensor(t, "x", []int64{1}, []float32{41}))
	hostlertest.Fails(t, err, hostler.InvalidInput, "x")
	if calls := len(host.Calls("plus")); calls != 1 {
		t.Errorf("got %d calls", calls)
	}
}
