package host

import (
	"hostler/internal/abi"
	"unsafe"
)

//go:wasmimport hostler:plugin/metrics@0.1.0 count
func metricsCount(name string, by uint64)

//go:wasmimport hostler:plugin/metrics@0.1.0 set
func metricsSet(name string, value float64)

//go:wasmimport hostler:plugin/metrics@0.1.0 [static]counter.create
func counterCreate(name, help string, labels unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/metrics@0.1.0 [method]counter.add
func counterAdd(counter uint32, values unsafe.Pointer, length uint32, by float64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/metrics@0.1.0 [static]gauge.create
func gaugeCreate(name, help string, labels unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/metrics@0.1.0 [method]gauge.set
func gaugeSet(gauge uint32, values unsafe.Pointer, length uint32, value float64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/metrics@0.1.0 [method]gauge.add
func gaugeAdd(gauge uint32, values unsafe.Pointer, length uint32, by float64, to unsafe.Pointer)

//go:wasmimport hostler:plugin/metrics@0.1.0 [static]histogram.create
func histogramCreate(name, help string, labels unsafe.Pointer, length uint32, buckets unsafe.Pointer, bucketsLength uint32, to unsafe.Pointer)

//go:wasmimport hostler:plugin/metrics@0.1.0 [method]histogram.observe
func histogramObserve(histogram uint32, values unsafe.Pointer, length uint32, value float64, to unsafe.Pointer)

func MetricsCount(name string, by uint64) {
	name = abi.Text(name)
	call := abi.Begin()
	defer call.End()
	metricsCount(name, by)
}

func MetricsSet(name string, value float64) {
	name = abi.Text(name)
	call := abi.Begin()
	defer call.End()
	metricsSet(name, value)
}

func CounterCreate(name, help string, labels []string) (uint32, *errorOf) {
	name, help = abi.Text(name), abi.Text(help)
	call := abi.Begin()
	defer call.End()
	counterCreate(name, help, abi.Pointer(abi.Strings(labels)), uint32(len(labels)), abi.Area())
	return handleOrError(abi.Results())
}

func CounterAdd(counter uint32, values []string, by float64) *errorOf {
	call := abi.Begin()
	defer call.End()
	counterAdd(counter, abi.Pointer(abi.Strings(values)), uint32(len(values)), by, abi.Area())
	return onlyError(abi.Results())
}

func GaugeCreate(name, help string, labels []string) (uint32, *errorOf) {
	name, help = abi.Text(name), abi.Text(help)
	call := abi.Begin()
	defer call.End()
	gaugeCreate(name, help, abi.Pointer(abi.Strings(labels)), uint32(len(labels)), abi.Area())
	return handleOrError(abi.Results())
}

func GaugeSet(gauge uint32, values []string, value float64) *errorOf {
	call := abi.Begin()
	defer call.End()
	gaugeSet(gauge, abi.Pointer(abi.Strings(values)), uint32(len(values)), value, abi.Area())
	return onlyError(abi.Results())
}

func GaugeAdd(gauge uint32, values []string, by float64) *errorOf {
	call := abi.Begin()
	defer call.End()
	gaugeAdd(gauge, abi.Pointer(abi.Strings(values)), uint32(len(values)), by, abi.Area())
	return onlyError(abi.Results())
}

func HistogramCreate(name, help string, labels []string, buckets []float64) (uint32, *errorOf) {
	name, help = abi.Text(name), abi.Text(help)
	call := abi.Begin()
	defer call.End()
	histogramCreate(name, help, abi.Pointer(abi.Strings(labels)), uint32(len(labels)), abi.Pointer(buckets), uint32(len(buckets)), abi.Area())
	return handleOrError(abi.Results())
}

func HistogramObserve(histogram uint32, values []string, value float64) *errorOf {
	call := abi.Begin()
	defer call.End()
	histogramObserve(histogram, abi.Pointer(abi.Strings(values)), uint32(len(values)), value, abi.Area())
	return onlyError(abi.Results())
}
