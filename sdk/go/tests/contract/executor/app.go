//go:build wasip1

// An executor that uses every function that the host offers, and answers with the names of those that
// did not behave. Run by projects.py.
package main

import (
	"bytes"
	"hostler"
	"hostler/executor"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Everything implements hostler.BatchExecutor.
type Everything struct{}

func init() { executor.Export(Everything{}) }

func main() {}

// faults collects what did not behave.
type faults []string

func (f *faults) check(ok bool, what string) {
	if !ok {
		*f = append(*f, what)
	}
}

func (f *faults) none(err error, what string) {
	if err != nil {
		*f = append(*f, what+": "+err.Error())
	}
}

// Submit returns y = x + 1 of the model if all is well.
func (Everything) Submit(r *hostler.Request, inputs []*hostler.Tensor, model *hostler.Callable) ([]*hostler.Tensor, error) {
	var f faults
	requests(&f, r)
	tensors(&f, inputs[0])
	files(&f)
	state(&f, inputs)
	metrics(&f)
	outputs := calls(&f, r, inputs, model)
	http(&f)
	if len(f) > 0 {
		return nil, hostler.NewError(hostler.Failed, strings.Join(f, "; "))
	}
	return outputs, nil
}

// SubmitBatch answers each request, and refuses negative numbers.
func (Everything) SubmitBatch(rs []*hostler.Request, inputs [][]*hostler.Tensor, model *hostler.Callable) ([]hostler.Outcome, error) {
	hostler.Metrics.Count("batches", 1)
	outcomes := make([]hostler.Outcome, len(rs))
	for i, list := range inputs {
		x, err := hostler.Elements[float32](list[0])
		if err == nil && x[0] < 0 {
			err = hostler.Invalid("x", "request "+rs[i].ID()+" is negative")
		}
		if err == nil {
			outcomes[i].Tensors, err = model.Call(list)
		}
		outcomes[i].Err = err
	}
	return outcomes, nil
}

func requests(f *faults, r *hostler.Request) {
	f.check(r.ID() != "" && r.Model() == "plus" && r.Version() == "1", "the names of the request")
	f.check(!r.Cancelled(), "cancelled")
	_, limited := r.TimeLeft()
	f.check(limited, "time left")
	names := r.ParameterNames()
	slices.Sort(names)
	f.check(slices.Equal(names, []string{"flag", "number", "text", "whole"}), "parameter names: "+strings.Join(names, ","))
	flag, err := r.Flag("flag")
	f.check(flag && err == nil, "flag")
	text, has, err := r.Text("text")
	f.check(text == "größer" && has && err == nil, "text")
	whole, has, err := r.Integer("whole")
	f.check(whole == -7 && has && err == nil, "whole")
	number, has, err := r.Number("number")
	f.check(number == 0.5 && has && err == nil, "number")
	_, has, err = r.Number("none")
	f.check(!has && err == nil, "no parameter")
	_, _, err = r.Integer("text")
	f.check(hostler.KindOf(err) == hostler.InvalidInput, "a parameter of another type")
	note := bytes.Repeat([]byte("note"), 1000)
	r.SetNote(note)
	f.check(bytes.Equal(r.Note(), note), "note")
	r.SetNote(nil)
	f.check(len(r.Note()) == 0, "empty note")
}

func tensors(f *faults, x *hostler.Tensor) {
	f.check(x.Name() == "x" && x.Datatype() == hostler.FP32 && x.ByteLength() == 4, "properties: "+x.Described())
	y := x.Renamed("y")
	z, err := y.Reshaped(1, 1, 1)
	f.none(err, "reshaped")
	f.check(z.Name() == "y" && z.Described() == "FP32 [1,1,1]", "views")
	_, err = x.Reshaped(7)
	f.check(hostler.KindOf(err) == hostler.InvalidInput, "a wrong shape")
	large := make([]uint8, 3<<20)
	for i := range large {
		large[i] = uint8(i % 251)
	}
	tensor, err := hostler.NewTensor("large", []int64{int64(len(large))}, large)
	f.none(err, "large tensor")
	f.check(bytes.Equal(tensor.Data(), large), "the data of a large tensor")
	part := make([]byte, 100)
	f.check(tensor.ReadAt(part, len(large)-10) == 10 && part[0] == large[len(large)-10], "the end of a tensor")
	f.check(tensor.ReadAt(part, len(large)+10) == 0, "after the end of a tensor")
	scalar, err := hostler.NewTensor("s", nil, []string{"ä"})
	f.none(err, "scalar")
	texts, err := hostler.Elements[string](scalar)
	f.check(err == nil && texts[0] == "ä" && len(scalar.Shape()) == 0, "a scalar of BYTES")
	empty, err := hostler.NewTensor("e", []int64{0}, []int64{})
	f.none(err, "empty")
	none, err := hostler.Elements[int64](empty)
	f.check(err == nil && len(none) == 0, "an empty tensor")
}

func files(f *faults) {
	f.check(slices.Equal(hostler.Assets.Names(), []string{"words"}), "names of assets")
	words, err := hostler.Assets.Read("words")
	f.check(err == nil && string(words) == "one two\n", "asset: "+string(words))
	part := make([]byte, 3)
	n, err := hostler.Assets.ReadAt("words", part, 4)
	f.check(err == nil && n == 3 && string(part) == "two", "a part of an asset")
	_, err = hostler.Assets.Read("none")
	f.check(hostler.KindOf(err) == hostler.Failed && strings.HasPrefix(err.Error(), "asset \"none\""), "a missing asset")
	value, has, err := hostler.Config.Get("greeting")
	f.check(value == "grüß" && has && err == nil, "config: "+value)
	_, has, err = hostler.Config.Get("none")
	f.check(!has && err == nil, "no config")
	hostler.Log.Trace("trace")
	hostler.Log.Debug("debug")
	hostler.Log.Info("info")
	hostler.Log.Warn("warn")
}

func state(f *faults, inputs []*hostler.Tensor) {
	f.none(hostler.State.Set("key", []byte("value"), time.Minute), "set")
	value, has := hostler.State.Get("key")
	f.check(has && string(value) == "value", "get")
	f.none(hostler.State.SetTensors("tensors", inputs, hostler.Forever), "set tensors")
	tensors, has := hostler.State.GetTensors("tensors")
	f.check(has && len(tensors) == len(inputs) && tensors[0].Name() == "x", "get tensors")
	_, has = hostler.State.GetTensors("none")
	f.check(!has, "no tensors")
	f.check(hostler.State.Delete("key") && !hostler.State.Delete("key"), "delete")
	err := hostler.State.Set("key", make([]byte, 10<<20), hostler.Forever)
	f.check(hostler.KindOf(err) == hostler.TooLarge, "a value that is too large")
	before := hostler.State.Read("counter")
	f.check(hostler.State.Add("counter", 5) == before+5, "add")
	now, set := hostler.State.CompareAndSwap("counter", before, 1)
	f.check(now == before+5 && !set, "a swap that fails")
	now, set = hostler.State.CompareAndSwap("counter", before+5, -3)
	f.check(now == -3 && set, "a swap")
}

func metrics(f *faults) {
	hostler.Metrics.Count("seen", 2)
	hostler.Metrics.Set("level", 0.25)
	counter, err := hostler.NewCounter("rows", "Rows.", "kind", "country")
	f.none(err, "counter")
	f.none(counter.Add(1, "a", "é"), "add to a counter")
	f.check(hostler.KindOf(counter.Add(-1, "a", "é")) == hostler.Failed, "a negative number")
	gauge, err := hostler.NewGauge("temperature", "Degrees.")
	f.none(err, "gauge")
	f.none(gauge.Set(20), "set a gauge")
	f.none(gauge.Add(-0.5), "add to a gauge")
	histogram, err := hostler.NewHistogram("seconds", "Seconds.", []float64{0.1, 1}, "kind")
	f.none(err, "histogram")
	f.none(histogram.Observe(0.5, "a"), "observe")
	_, err = hostler.NewGauge("rows", "Rows.")
	f.check(err != nil, "another definition")
}

func calls(f *faults, r *hostler.Request, inputs []*hostler.Tensor, model *hostler.Callable) []*hostler.Tensor {
	f.check(model.Model() == "plus" && model.Version() == "1" && !model.Streaming(), "the names of the model")
	outputs, err := model.CallWithin(inputs, time.Second)
	f.none(err, "call within")
	other, err := hostler.Models.Get("other")
	f.none(err, "models.get")
	_, err = hostler.Models.GetVersion("other", "9")
	f.check(hostler.KindOf(err) == hostler.NotFound, "a version that does not exist")
	if err == nil || other == nil {
		return nil
	}
	a, err := model.Start(inputs)
	f.none(err, "start")
	b, err := other.StartWithin(inputs, time.Second)
	f.none(err, "start within")
	first, ok := hostler.WaitAny(time.Second, a, b)
	f.check(ok && first <= 1, "wait any: "+strconv.Itoa(first))
	returned, err := a.Wait()
	f.check(err == nil && len(returned) == 1, "wait")
	_, done, err := a.Outcome()
	f.check(!done && err == nil, "a second outcome")
	count := 0
	for tensors, err := range b.Responses() {
		f.check(err == nil && len(tensors) == 1, "response")
		count++
	}
	f.check(count == 1, "the number of responses")
	c, err := other.Start(inputs)
	f.none(err, "start again")
	c.Cancel()
	began := time.Now()
	hostler.Sleep(20 * time.Millisecond)
	f.check(time.Since(began) >= 19*time.Millisecond, "sleep")
	_, ok = hostler.WaitAny(time.Millisecond)
	f.check(!ok, "wait for nothing")
	f.none(hostler.Answer(outputs), "answer")
	f.check(hostler.KindOf(hostler.Answer(outputs)) == hostler.Unsupported, "a second answer")
	return outputs
}

func http(f *faults) {
	address, _, _ := hostler.Config.Get("server")
	response, err := hostler.Fetch(hostler.HTTPRequest{
		Method: "POST", URL: address + "/echo", Body: []byte("body"), Timeout: 900 * time.Millisecond,
		Headers: []hostler.HTTPHeader{{Name: "x-one", Value: "1"}, {Name: "x-two", Value: "2"}},
	})
	f.none(err, "fetch")
	if err == nil {
		sum, _ := response.Header("X-Sum")
		f.check(response.Status == 201 && response.Success() == nil && string(response.Body) == "body" && sum == "12", "the response: "+sum)
	}
	_, err = hostler.Fetch(hostler.HTTPRequest{URL: "http://192.0.2.1/"})
	f.check(hostler.KindOf(err) == hostler.Unsupported, "a server that is not allowed")
	for _, fault := range *f {
		hostler.Log.Error(fault)
	}
	hostler.Metrics.Set("faults", float64(len(*f)))
	hostler.Metrics.Count("finished", 1)
}
