package main

import (
	"hostler"
	"hostler/hostlertest"
	"slices"
	"testing"
)

func TestDoublesEachElement(t *testing.T) {
	host := hostlertest.New(t)
	outputs, err := host.Predict(Double{}, hostlertest.Tensor(t, "x", []int64{2}, []float32{1, 2.5}))
	if err != nil {
		t.Fatal(err)
	}
	if y := hostlertest.Values[float32](t, outputs, "y"); !slices.Equal(y, []float32{2, 5}) {
		t.Errorf("got %v", y)
	}
}

func TestRefusesARequestWithoutItsInput(t *testing.T) {
	host := hostlertest.New(t)
	_, err := host.Predict(Double{})
	hostlertest.Fails(t, err, hostler.InvalidInput, "x")
}
