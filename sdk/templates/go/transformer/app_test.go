package main

import (
	"hostler"
	"hostler/hostlertest"
	"slices"
	"testing"
)

func TestTheValueBecomesTheInput(t *testing.T) {
	host := hostlertest.New(t)
	input := hostlertest.JSON(t, map[string]any{"value": 41})
	inputs, err := host.Preprocess(Number{}, input, hostler.Spec("x", hostler.FP32, -1))
	if err != nil {
		t.Fatal(err)
	}
	if x := hostlertest.Values[float32](t, inputs, "x"); !slices.Equal(x, []float32{41}) {
		t.Errorf("got %v", x)
	}
}

func TestTheOutputBecomesTheAnswer(t *testing.T) {
	host := hostlertest.New(t)
	plus := func(inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		x := hostlertest.Values[float32](t, inputs, "x")
		return []*hostler.Tensor{hostlertest.Tensor(t, "y", []int64{1}, []float32{x[0] + 1})}, nil
	}
	payload, err := host.Transform(Number{}, hostlertest.JSON(t, map[string]any{"value": 41}), plus)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Answer float32 }
	hostlertest.Decode(t, payload, &answer)
	if answer.Answer != 42 {
		t.Errorf("got %v", answer)
	}
}

func TestRefusesWhatIsNotANumber(t *testing.T) {
	host := hostlertest.New(t)
	_, err := host.Preprocess(Number{}, hostlertest.JSON(t, map[string]any{"value": "x"}))
	hostlertest.Fails(t, err, hostler.InvalidInput, "value")
}
