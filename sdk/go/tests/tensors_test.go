package tests

import (
	"hostler"
	"hostler/hostlertest"
	"math"
	"slices"
	"testing"
)

func roundTrip[T hostler.Element](t *testing.T, datatype hostler.Datatype, elements []T, equal func(a, b T) bool) {
	t.Helper()
	tensor := hostlertest.Tensor(t, "x", []int64{int64(len(elements))}, elements)
	got, err := hostler.Elements[T](tensor)
	if err != nil || tensor.Datatype() != datatype || !slices.EqualFunc(got, elements, equal) {
		t.Errorf("%v: got %v, %v", datatype, got, err)
	}
}

func same[T comparable](a, b T) bool { return a == b }

func TestElementsOfEveryDatatype(t *testing.T) {
	roundTrip(t, hostler.Bool, []bool{true, false}, same)
	roundTrip(t, hostler.Uint8, []uint8{0, 255}, same)
	roundTrip(t, hostler.Uint16, []uint16{0, 65535}, same)
	roundTrip(t, hostler.Uint32, []uint32{0, math.MaxUint32}, same)
	roundTrip(t, hostler.Uint64, []uint64{0, math.MaxUint64}, same)
	roundTrip(t, hostler.Int8, []int8{-128, 127}, same)
	roundTrip(t, hostler.Int16, []int16{-32768, 32767}, same)
	roundTrip(t, hostler.Int32, []int32{math.MinInt32, math.MaxInt32}, same)
	roundTrip(t, hostler.Int64, []int64{math.MinInt64, math.MaxInt64}, same)
	roundTrip(t, hostler.FP32, []float32{-0.5, float32(math.Inf(1))}, same)
	roundTrip(t, hostler.FP64, []float64{-0.1, math.MaxFloat64}, same)
	roundTrip(t, hostler.Bytes, []string{"", "ä"}, same)
	roundTrip(t, hostler.Bytes, [][]byte{{}, {0, 255}}, func(a, b []byte) bool { return slices.Equal(a, b) })
}

func TestHalvesAreExactAndRoundToTheEvenOne(t *testing.T) {
	for bits := range 1 << 16 {
		for _, datatype := range []hostler.Datatype{hostler.FP16, hostler.BF16} {
			tensor, err := hostler.CreateTensor("x", datatype, nil, []byte{byte(bits), byte(bits >> 8)})
			if err != nil {
				t.Fatal(err)
			}
			floats, err := hostler.Floats(tensor)
			if err != nil {
				t.Fatal(err)
			}
			create := hostler.NewFP16
			if datatype == hostler.BF16 {
				create = hostler.NewBF16
			}
			again, err := create("x", nil, floats)
			if err != nil {
				t.Fatal(err)
			}
			if got := again.Data(); floats[0] == floats[0] && (got[0] != byte(bits) || got[1] != byte(bits>>8)) {
				t.Fatalf("%v %04x: became %v, then %x", datatype, bits, floats[0], got)
			}
			tensor.Close()
			again.Close()
		}
	}
	for value, want := range map[float32]float32{
		2049: 2048, 2051: 2052, 65519: 65504, 65520: float32(math.Inf(1)), 1e-8: 0,
		// Just above the half of the smallest number.
		3e-8: 1.0 / (1 << 24), 6e-8: 1.0 / (1 << 24),
	} {
		tensor, err := hostler.NewFP16("x", nil, []float32{value})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := hostler.Floats(tensor); got[0] != want {
			t.Errorf("%v became %v, not %v", value, got[0], want)
		}
	}
}

func TestErrorsOfTensors(t *testing.T) {
	_, err := hostler.NewTensor("x", []int64{5}, []float32{1})
	hostlertest.Fails(t, err, hostler.InvalidInput, "")
	if want := `tensor "x": FP32 of shape [5] needs 20 bytes, got 4`; err.Error() != want {
		t.Errorf("got %v", err)
	}
	_, err = hostler.NewTensor("x", []int64{-1}, []float32{})
	hostlertest.Fails(t, err, hostler.InvalidInput, "")
	x := hostlertest.Tensor(t, "x", []int64{2}, []int64{1, 2})
	_, err = hostler.Elements[float32](x)
	hostlertest.Fails(t, err, hostler.Failed, "")
	if want := `tensor "x": expected FP32, got INT64; use hostler.Elements[int64]`; err.Error() != want {
		t.Errorf("got %v", err)
	}
	_, err = x.Reshaped(3)
	hostlertest.Fails(t, err, hostler.InvalidInput, "")
	_, err = hostler.Named([]*hostler.Tensor{x}, "y")
	hostlertest.Fails(t, err, hostler.Failed, "")
}

func TestViewsOfTensors(t *testing.T) {
	x := hostlertest.Tensor(t, "x", []int64{2, 3}, []uint8{1, 2, 3, 4, 5, 6})
	y, err := x.Renamed("y").Reshaped(3, 2)
	if err != nil || y.Name() != "y" || y.Described() != "UINT8 [3,2]" || y.ByteLength() != 6 {
		t.Errorf("got %v, %v", y.Described(), err)
	}
	data := make([]byte, 4)
	if n := x.ReadAt(data, 4); n != 2 || data[1] != 6 {
		t.Errorf("got %d bytes: %v", n, data)
	}
	if n := x.ReadAt(data, 7); n != 0 {
		t.Errorf("got %d bytes after the end", n)
	}
	shape := x.Shape()
	shape[0] = 9
	if x.Shape()[0] != 2 {
		t.Error("the shape of a tensor was changed")
	}
}
