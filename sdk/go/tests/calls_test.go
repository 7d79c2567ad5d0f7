package tests

import (
	"errors"
	"hostler"
	"hostler/hostlertest"
	"slices"
	"testing"
	"time"
)

func echo(inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
	return []*hostler.Tensor{inputs[0].Renamed("x")}, nil
}

func TestTheFasterOfTwoModels(t *testing.T) {
	host := hostlertest.New(t)
	host.AddModel("a", hostlertest.Model{Answer: echo, Delay: 30 * time.Millisecond})
	host.AddModel("b:2", hostlertest.Model{Answer: echo, Delay: 10 * time.Millisecond})
	_, err := predict(t, host, func(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		var calls []*hostler.Invocation
		for _, name := range []string{"a", "b"} {
			model, err := hostler.Models.Get(name)
			if err != nil {
				return nil, err
			}
			call, err := model.Start(inputs)
			if err != nil {
				return nil, err
			}
			calls = append(calls, call)
		}
		if _, done, _ := calls[0].Outcome(); done {
			return nil, errors.New("a has answered at once")
		}
		first, ok := hostler.WaitAny(100*time.Millisecond, calls...)
		if first != 1 || !ok {
			return nil, errors.New("b was not the first")
		}
		return calls[first].Wait()
	})
	if err != nil || host.Now() != 10*time.Millisecond || len(host.Calls("b:2")) != 1 {
		t.Errorf("got %v after %v", err, host.Now())
	}
}

func TestTimesOfCalls(t *testing.T) {
	host := hostlertest.New(t)
	host.AddModel("slow", hostlertest.Model{Answer: echo, Delay: time.Second})
	host.Request.Timeout = 3 * time.Second
	_, err := predict(t, host, func(r *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		slow, err := hostler.Models.GetVersion("slow", "1")
		if err != nil {
			return nil, err
		}
		if _, err := slow.CallWithin(inputs, 10*time.Millisecond); hostler.KindOf(err) != hostler.DeadlineExceeded {
			return nil, errors.New("the timeout had no effect")
		}
		hostler.Sleep(500 * time.Millisecond)
		if left, limited := r.TimeLeft(); left != 2490*time.Millisecond || !limited {
			return nil, errors.New("time left: " + left.String())
		}
		if _, err := slow.Call(inputs); err != nil {
			return nil, err
		}
		hostler.Sleep(time.Hour)
		return slow.Call(inputs)
	})
	hostlertest.Fails(t, err, hostler.DeadlineExceeded, "")
	if host.Now() != 3*time.Second {
		t.Errorf("the clock is at %v", host.Now())
	}
}

func TestResponsesOfAStreamingModel(t *testing.T) {
	host := hostlertest.New(t)
	host.AddModel("words", hostlertest.Model{Responses: func([]*hostler.Tensor) []hostler.Outcome {
		one := func(text string) hostler.Outcome {
			return hostler.Outcome{Tensors: []*hostler.Tensor{hostlertest.Tensor(t, "w", nil, []string{text})}}
		}
		return []hostler.Outcome{one("a"), one("b"), {Err: hostler.NewError(hostler.Unavailable, "gone")}}
	}, Interval: time.Millisecond})
	var words []string
	_, err := predict(t, host, func(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		model, err := hostler.Models.Get("words")
		if err != nil {
			return nil, err
		}
		if _, err := model.Call(inputs); hostler.KindOf(err) != hostler.Unsupported || !model.Streaming() {
			return nil, errors.New("a streaming model has one response")
		}
		call, err := model.Start(inputs)
		if err != nil {
			return nil, err
		}
		for tensors, err := range call.Responses() {
			if err != nil {
				return nil, err
			}
			words = append(words, hostlertest.Values[string](t, tensors, "w")...)
		}
		return nil, nil
	})
	hostlertest.Fails(t, err, hostler.Unavailable, "")
	if !slices.Equal(words, []string{"a", "b"}) {
		t.Errorf("got %v", words)
	}
}

func TestStateMetricsConfigAndAssets(t *testing.T) {
	host := hostlertest.New(t)
	host.Config["factor"], host.Config["bad"] = " 2.5 ", "x"
	host.Assets["w"] = []byte("0123456789")
	for range 2 {
		_, err := predict(t, host, func(r *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
			if factor, err := hostler.Config.Float("factor", 1, 0, 10); factor != 2.5 || err != nil {
				return nil, errors.New("the factor is wrong")
			}
			if _, err := hostler.Config.Int("bad", 1, 0, 10); err == nil {
				return nil, errors.New("a text is a number")
			}
			part := make([]byte, 4)
			if n, err := hostler.Assets.ReadAt("w", part, 8); n != 2 || err != nil || string(part[:n]) != "89" {
				return nil, errors.New("the asset is wrong")
			}
			if _, err := hostler.Assets.Read("none"); hostler.KindOf(err) != hostler.Failed {
				return nil, errors.New("an asset that is missing was read")
			}
			counter, err := hostler.NewCounter("rows", "Rows.", "kind")
			if err != nil {
				return nil, err
			}
			if err := counter.Add(2, "a"); err != nil {
				return nil, err
			}
			if err := counter.Add(2); hostler.KindOf(err) != hostler.Failed || err == nil {
				return nil, errors.New("a counter without its labels was changed")
			}
			hostler.State.Add("calls", 1)
			if err := hostler.State.SetTensors("last", inputs, time.Second); err != nil {
				return nil, err
			}
			return nil, hostler.State.Set("k", []byte("v"), hostler.Forever)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if value, _ := host.Metric("rows", "a"); value != 4 {
		t.Errorf("the counter is %v", value)
	}
	if hostler.State.Read("calls") != 2 {
		t.Errorf("the state counter is %d", hostler.State.Read("calls"))
	}
	if last, known := hostler.State.GetTensors("last"); !known || hostlertest.Values[float32](t, last, "x")[0] != 1 {
		t.Error("the tensors are gone")
	}
	host.Advance(time.Second)
	if _, known := hostler.State.GetTensors("last"); known {
		t.Error("the tensors did not expire")
	}
	if value, known := hostler.State.Get("k"); !known || string(value) != "v" || !hostler.State.Delete("k") {
		t.Error("the value is gone")
	}
	if value, changed := hostler.State.Update("calls", func(value int64) (int64, bool) { return value + 5, true }); value != 7 || !changed {
		t.Errorf("the state counter became %d", value)
	}
}

func TestHTTPAndAnswers(t *testing.T) {
	host := hostlertest.New(t)
	host.HTTP = func(request hostler.HTTPRequest) (*hostler.HTTPResponse, error) {
		return &hostler.HTTPResponse{Status: 404, Headers: []hostler.HTTPHeader{{Name: "a", Value: request.URL}}}, nil
	}
	host.Model("plus", echo)
	outcomes, err := host.SubmitBatch(batch{}, "plus",
		[]*hostler.Tensor{hostlertest.Tensor(t, "x", []int64{1}, []float32{1})},
		[]*hostler.Tensor{hostlertest.Tensor(t, "y", []int64{1}, []float32{1})})
	if err != nil || len(outcomes) != 2 || outcomes[0].Err != nil || hostler.KindOf(outcomes[1].Err) != hostler.InvalidInput {
		t.Errorf("got %v, %v", outcomes, err)
	}
	outputs, err := host.Submit(batch{}, "plus", hostlertest.Tensor(t, "x", []int64{1}, []float32{1}))
	early, sent := host.Early()
	if err != nil || !sent || len(early) != 1 || len(outputs) != 0 {
		t.Errorf("got %v, %v, %v", early, outputs, err)
	}
}

// batch answers early, and batches at once.
type batch struct{}

func (batch) Submit(_ *hostler.Request, inputs []*hostler.Tensor, model *hostler.Callable) ([]*hostler.Tensor, error) {
	response, err := hostler.Fetch(hostler.HTTPRequest{URL: "http://a"})
	if err != nil {
		return nil, err
	}
	if value, _ := response.Header("A"); value != "http://a" || response.Success() == nil {
		return nil, errors.New("the response is wrong")
	}
	if err := hostler.Answer(inputs); err != nil {
		return nil, err
	}
	if err := hostler.Answer(inputs); hostler.KindOf(err) != hostler.Unsupported {
		return nil, errors.New("a request was answered twice")
	}
	return nil, nil
}

func (batch) SubmitBatch(_ []*hostler.Request, inputs [][]*hostler.Tensor, model *hostler.Callable) ([]hostler.Outcome, error) {
	outcomes := make([]hostler.Outcome, len(inputs))
	for i, list := range inputs {
		if list[0].Name() != "x" {
			outcomes[i].Err = hostler.Invalid("x", "it is missing")
			continue
		}
		outcomes[i].Tensors, outcomes[i].Err = model.Call(list)
	}
	return outcomes, nil
}

func TestATimeThatHasPassedIsNoWait(t *testing.T) {
	host := hostlertest.New(t)
	host.AddModel("slow", hostlertest.Model{Answer: echo, Delay: time.Second})
	_, err := predict(t, host, func(_ *hostler.Request, inputs []*hostler.Tensor) ([]*hostler.Tensor, error) {
		slow, err := hostler.Models.Get("slow")
		if err != nil {
			return nil, err
		}
		if _, err := slow.CallWithin(inputs, -3*time.Millisecond); hostler.KindOf(err) != hostler.DeadlineExceeded {
			return nil, errors.New("a negative timeout was no timeout")
		}
		call, err := slow.Start(inputs)
		if err != nil {
			return nil, err
		}
		if _, ok := hostler.WaitAny(-time.Second, call); ok {
			return nil, errors.New("a negative timeout was no timeout")
		}
		hostler.Sleep(-time.Second)
		return inputs, nil
	})
	if err != nil || host.Now() != 0 {
		t.Errorf("got %v after %v", err, host.Now())
	}
}
