//go:build !wasip1

package host

import (
	"hostler/internal/contract"
	"hostler/internal/standin"
	"time"
)

// Generation is the number of the host.
func Generation() int { return standin.Generation() }

func TensorCreate(name string, d datatype, shape []int64, data []byte) (uint32, *errorOf) {
	return standin.CreateTensor(name, d, shape, data)
}

func TensorName(tensor uint32) string       { return standin.TensorOf(tensor).Name }
func TensorDatatype(tensor uint32) datatype { return standin.TensorOf(tensor).Datatype }
func TensorShape(tensor uint32) []int64     { return standin.TensorOf(tensor).Shape }

func TensorByteLength(tensor uint32) uint64 { return uint64(len(standin.TensorOf(tensor).Data)) }

func TensorRead(tensor uint32, offset uint64, data []byte) int {
	all := standin.TensorOf(tensor).Data
	return copy(data, all[min(offset, uint64(len(all))):])
}

func TensorRenamed(tensor uint32, name string) uint32 { return standin.Renamed(tensor, name) }

func TensorReshaped(tensor uint32, shape []int64) (uint32, *errorOf) {
	return standin.Reshaped(tensor, shape)
}

func TensorDrop(tensor uint32) { standin.DropTensor(tensor) }

func RequestID(request uint32) string      { return requestOf(request).ID }
func RequestModel(request uint32) string   { return requestOf(request).Model }
func RequestVersion(request uint32) string { return requestOf(request).Version }

func RequestTimeLeft(request uint32) (uint64, bool) {
	return standin.Current().TimeLeft(requestOf(request))
}

func RequestCancelled(request uint32) bool { return requestOf(request).Cancelled }

func RequestParameter(request uint32, name string) any { return requestOf(request).Parameters[name] }

func RequestParameterNames(request uint32) []string {
	var names []string
	for name := range requestOf(request).Parameters {
		names = append(names, name)
	}
	return names
}

func RequestNote(request uint32) []byte { return append([]byte(nil), requestOf(request).Note...) }

func RequestSetNote(request uint32, data []byte) {
	if len(data) > 1<<20 {
		panic("hostler: the host would end the instance: the note has more than 1 MiB")
	}
	requestOf(request).Note = append([]byte(nil), data...)
}

func RequestDrop(request uint32) { standin.Current().DropRequest(request) }

func requestOf(request uint32) *standin.Request { return standin.Current().RequestOf(request) }

func CallableModel(callable uint32) string   { return standin.Current().ModelOf(callable).Name }
func CallableVersion(callable uint32) string { return standin.Current().ModelOf(callable).Version }
func CallableStreaming(callable uint32) bool { return standin.Current().ModelOf(callable).IsStreaming }

func CallableCall(callable uint32, inputs []uint32, timeoutUS int64) contract.Outcome {
	host := standin.Current()
	return host.Call(host.ModelOf(callable), inputs, microseconds(timeoutUS))
}

func CallableStart(callable uint32, inputs []uint32, timeoutUS int64) (uint32, *errorOf) {
	host := standin.Current()
	return host.Start(host.ModelOf(callable), inputs, microseconds(timeoutUS))
}

func CallableDrop(callable uint32) { standin.Current().DropModel(callable) }

func InvocationOutcome(invocation uint32) (contract.Outcome, bool) {
	return standin.Current().Outcome(invocation)
}

func InvocationNext(invocation uint32) (contract.Outcome, bool) {
	return standin.Current().Next(invocation)
}

func InvocationDrop(invocation uint32) { standin.Current().DropCall(invocation) }

func WaitAny(invocations []uint32, timeoutUS int64) (int, bool) {
	return standin.Current().WaitAny(invocations, microseconds(timeoutUS))
}

func Answer(outputs []uint32) *errorOf { return standin.Current().Answer(outputs) }

func ModelsGet(model, version string) (uint32, *errorOf) {
	return standin.Current().Find(model, version)
}

func AssetsNames() []string { return standin.Current().AssetNames() }

func AssetsSize(name string) (uint64, *errorOf) {
	data, err := standin.Current().Asset(name)
	return uint64(len(data)), err
}

func AssetsRead(name string, offset uint64, data []byte) (int, *errorOf) {
	all, err := standin.Current().Asset(name)
	return copy(data, all[min(offset, uint64(len(all))):]), err
}

func StateGet(key string) ([]byte, bool) {
	entry, known := standin.Current().Entry(key)
	if !known || entry.IsTensors {
		return nil, false
	}
	return append([]byte(nil), entry.Value...), true
}

func StateSet(key string, value []byte, ttlMS int64) *errorOf {
	return standin.Current().SetEntry(key, standin.Entry{Value: append([]byte(nil), value...)}, ttlMS)
}

func StateGetTensors(key string) ([]uint32, bool) {
	entry, known := standin.Current().Entry(key)
	if !known || !entry.IsTensors {
		return nil, false
	}
	return standin.Copies(entry.Tensors), true
}

func StateSetTensors(key string, tensors []uint32, ttlMS int64) *errorOf {
	return standin.Current().SetEntry(key, standin.Entry{Tensors: standin.Copies(tensors), IsTensors: true}, ttlMS)
}

func StateDelete(key string) bool {
	_, known := standin.Current().Entry(key)
	delete(standin.Current().State, key)
	return known
}

func StateAdd(counter string, delta int64) int64 {
	counters := standin.Current().Counters
	sum := counters[counter] + delta
	// The value saturates.
	switch {
	case delta > 0 && sum < counters[counter]:
		sum = 1<<63 - 1
	case delta < 0 && sum > counters[counter]:
		sum = -1 << 63
	}
	counters[counter] = sum
	return sum
}

func StateCompareExchange(counter string, expected, updated int64) (int64, bool) {
	counters := standin.Current().Counters
	if counters[counter] != expected {
		return counters[counter], false
	}
	counters[counter] = updated
	return updated, true
}

func Log(level contract.Level, message string) {
	host := standin.Current()
	host.Log = append(host.Log, standin.Line{Level: level, Message: message})
}

func ConfigGet(key string) (string, bool, *errorOf) {
	value, known := standin.Current().Config[key]
	return value, known, nil
}

func MetricsCount(name string, by uint64) {
	standin.CheckName(name)
	standin.Current().Events[name] += by
}

func MetricsSet(name string, value float64) {
	standin.CheckName(name)
	standin.Current().Values[name] = value
}

func CounterCreate(name, help string, labels []string) (uint32, *errorOf) {
	return standin.Current().CreateMetric(Counter, name, help, labels, nil)
}

func CounterAdd(counter uint32, values []string, by float64) *errorOf {
	return standin.Current().ChangeMetric(counter, standin.Add, values, by, false)
}

func GaugeCreate(name, help string, labels []string) (uint32, *errorOf) {
	return standin.Current().CreateMetric(Gauge, name, help, labels, nil)
}

func GaugeSet(gauge uint32, values []string, value float64) *errorOf {
	return standin.Current().ChangeMetric(gauge, standin.Set, values, value, true)
}

func GaugeAdd(gauge uint32, values []string, by float64) *errorOf {
	return standin.Current().ChangeMetric(gauge, standin.Add, values, by, true)
}

func HistogramCreate(name, help string, labels []string, buckets []float64) (uint32, *errorOf) {
	return standin.Current().CreateMetric(Histogram, name, help, labels, buckets)
}

func HistogramObserve(histogram uint32, values []string, value float64) *errorOf {
	return standin.Current().ChangeMetric(histogram, standin.Observe, values, value, true)
}

func HTTPFetch(request contract.HTTPRequest) (contract.HTTPResponse, *errorOf) {
	host := standin.Current()
	if host.HTTP == nil {
		return contract.HTTPResponse{}, &errorOf{Kind: contract.Unsupported, Message: "the test has no HTTP server"}
	}
	return host.HTTP(request)
}

func microseconds(count int64) time.Duration {
	if count < 0 {
		return -1
	}
	return time.Duration(count) * time.Microsecond
}
