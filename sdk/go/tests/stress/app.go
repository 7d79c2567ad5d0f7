//go:build wasip1

// A transformer that strains what a Go plugin depends on: the collector, goroutines that call the host,
// one that survives its call, large inputs, panics and misuse. Run by projects.py.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hostler"
	"hostler/internal/abi"
	"hostler/transformer"
	"runtime"
	"sync"
	"time"
)

// Stress implements hostler.Transformer.
type Stress struct{}

var calls int
var leftover chan int
var kept *hostler.Tensor

func init() { transformer.Export(Stress{}) }
func main() {}

type input struct {
	Value float32
	Pad   string
	Mode  string
	Rows  int
}

func (Stress) Preprocess(r *hostler.Request, payload hostler.Payload) ([]*hostler.Tensor, error) {
	calls++
	text, ok := payload.(hostler.JSON)
	if !ok {
		return nil, hostler.NewError(hostler.Unsupported, "send JSON")
	}
	var f input
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, hostler.Invalid("value", err.Error())
	}
	switch f.Mode {
	case "index":
		var list []int
		_ = list[f.Rows+3]
	case "nilmap":
		var m map[string]int
		m["a"] = 1
	case "nilptr":
		var p *input
		p.Value = 2
	case "div":
		z := f.Rows - f.Rows
		_ = 5 / z
	case "panic":
		panic("on purpose")
	case "panicerr":
		panic(fmt.Errorf("wrapped: %w", errors.New("inner")))
	case "plain":
		return nil, errors.New("plain error")
	case "wrapped":
		return nil, fmt.Errorf("row 3: %w", hostler.Invalid("rows[3]", "too wide"))
	case "twice":
		x, _ := hostler.NewTensor("x", []int64{1}, []float32{1})
		return []*hostler.Tensor{x, x}, nil
	case "nil":
		return []*hostler.Tensor{nil}, nil
	case "closed":
		x, _ := hostler.NewTensor("x", []int64{1}, []float32{1})
		x.Close()
		x.Name()
	case "badutf8":
		return nil, errors.New("bad \xff text")
	case "shape":
		_, err := hostler.NewTensor("x", []int64{5}, []float32{1})
		return nil, err
	case "kind":
		x, _ := hostler.NewTensor("x", []int64{1}, []int64{1})
		_, err := hostler.Elements[float32](x)
		return nil, err
	case "sleep":
		t := time.Now()
		time.Sleep(20 * time.Millisecond)
		if time.Since(t) < 15*time.Millisecond {
			return nil, errors.New("too short")
		}
	case "hsleep":
		hostler.Sleep(20 * time.Millisecond)
	case "deep":
		fmt.Println(deep(f.Rows))
	}
	if err := goroutines(r, f.Pad); err != nil {
		return nil, err
	}
	if err := survivors(f.Pad); err != nil {
		return nil, err
	}
	if calls%10 == 0 {
		runtime.GC()
	}
	x, err := hostler.NewTensor("x", []int64{1}, []float32{f.Value})
	if err != nil {
		return nil, err
	}
	return []*hostler.Tensor{x}, nil
}

// goroutines calls the host from several goroutines at once.
func goroutines(r *hostler.Request, pad string) error {
	part := pad[:min(len(pad), 3000)]
	r.SetNote(bytes.Repeat([]byte{byte(calls)}, 1000+calls%5000))
	var wg sync.WaitGroup
	sums := make([]int, 8)
	for i := range sums {
		wg.Add(1)
		go func() {
			defer wg.Done()
			big := make([]int64, 2000+i*100)
			for j := range big {
				big[j] = int64(j * i)
			}
			t, err := hostler.NewTensor("t", []int64{int64(len(big))}, big)
			if err != nil {
				panic(err)
			}
			runtime.Gosched()
			back, err := hostler.Elements[int64](t)
			if err != nil {
				panic(err)
			}
			for j := range back {
				if back[j] != big[j] {
					panic("corrupt")
				}
			}
			if !bytes.Equal(r.Note(), bytes.Repeat([]byte{byte(calls)}, 1000+calls%5000)) {
				panic("corrupt note")
			}
			key := fmt.Sprintf("k%d", i)
			if err := hostler.State.Set(key, []byte(key+part), hostler.Forever); err != nil {
				panic(err)
			}
			runtime.Gosched()
			if v, ok := hostler.State.Get(key); ok && string(v) != key+part {
				panic("corrupt state " + string(v))
			}
			sums[i] = len(back)
		}()
	}
	wg.Wait()
	return nil
}

// survivors uses what earlier calls have left: a goroutine, a tensor and metrics.
func survivors(pad string) error {
	if leftover == nil {
		leftover = make(chan int, 1000)
		go func() {
			for n := range leftover {
				hostler.Metrics.Count("leftover", uint64(n))
				runtime.Gosched()
				hostler.State.Set("left", bytes.Repeat([]byte{7}, 1000+n), hostler.Forever)
			}
		}()
	}
	leftover <- 1
	if kept == nil {
		k, err := hostler.NewTensor("kept", []int64{3}, []string{"a", "bb", "ccc"})
		if err != nil {
			return err
		}
		kept = k.Keep()
	}
	if v, err := hostler.Elements[string](kept); err != nil || v[2] != "ccc" {
		return fmt.Errorf("kept: %v %v", v, err)
	}
	c, err := hostler.NewCounter("rows", "Rows.", "kind")
	if err != nil {
		return err
	}
	if err := c.Add(1, "a"); err != nil {
		return err
	}
	h, err := hostler.NewHistogram("sizes", "Sizes.", []float64{1, 10, 100})
	if err != nil {
		return err
	}
	if err := h.Observe(float64(len(pad))); err != nil {
		return err
	}
	return nil
}

func deep(n int) int {
	var a [64]int
	a[n%64] = n
	if n == 0 {
		return 0
	}
	return deep(n-1) + a[n%64]
}

func (Stress) Postprocess(r *hostler.Request, outputs []*hostler.Tensor) (hostler.Payload, error) {
	y, err := hostler.Named(outputs, "y")
	if err != nil {
		return nil, err
	}
	e, err := hostler.Elements[float32](y)
	if err != nil {
		return nil, err
	}
	if calls%7 == 0 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	names := hostler.Assets.Names()
	answer, err := json.Marshal(map[string]any{"answer": e[0], "calls": calls, "sys": m.Sys, "heap": m.HeapAlloc, "gcs": m.NumGC, "arena": abi.ArenaBytes(), "assets": names, "note": len(r.Note()), "id": r.ID()})
	return hostler.JSON(answer), err
}
