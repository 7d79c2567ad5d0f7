package standin

import (
	"hostler/internal/contract"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Metric is a counter, a gauge or a histogram.
type Metric struct {
	Kind       int
	Name, Help string
	Labels     []string
	Buckets    []float64
	// Values are by the values of the labels, as SeriesKey writes them.
	Values map[string]float64
	// Observations are those of a histogram.
	Observations map[string][]float64
}

// CheckName panics where a host would end the instance.
func CheckName(name string) {
	if !isName(name) {
		panic("hostler: the host would end the instance: \"" + name + "\" is not the name of a metric")
	}
}

func isName(name string) bool {
	isLetter := func(letter rune) bool {
		return letter == '_' || letter >= 'a' && letter <= 'z' || letter >= 'A' && letter <= 'Z' || letter >= '0' && letter <= '9'
	}
	return len(name) >= 1 && len(name) <= 64 && strings.IndexFunc(name, func(letter rune) bool { return !isLetter(letter) }) < 0
}

// CreateMetric returns a handle of a metric, which it creates if there is none.
func (h *Host) CreateMetric(kind int, name, help string, labels []string, buckets []float64) (uint32, *contract.Error) {
	fault := func(message string) (uint32, *contract.Error) {
		return 0, failure(contract.Failed, "metric \""+name+"\": "+message)
	}
	hasSuffix := slices.ContainsFunc([]string{"_total", "_bucket", "_sum", "_count"}, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
	switch {
	case !isName(name) || name[0] >= '0' && name[0] <= '9' || hasSuffix:
		return fault("this is not a valid name")
	case len(help) < 1 || len(help) > 256:
		return fault("the help text needs 1 to 256 bytes")
	case len(labels) > 8 || len(buckets) > 32:
		return 0, failure(contract.TooLarge, "metric \""+name+"\": at most 8 labels and 32 buckets")
	case !slices.IsSorted(buckets):
		return fault("the buckets are not ascending")
	}
	metric := h.Metrics[name]
	if metric == nil {
		metric = &Metric{
			Kind: kind, Name: name, Help: help, Labels: labels, Buckets: buckets,
			Values: map[string]float64{}, Observations: map[string][]float64{},
		}
		h.Metrics[name] = metric
	} else if metric.Kind != kind || metric.Help != help || !slices.Equal(metric.Labels, labels) || !slices.Equal(metric.Buckets, buckets) {
		return fault("it exists with another definition")
	}
	handle := newHandle()
	h.metrics[handle] = metric
	return handle, nil
}

// Change is what happens to a value of a metric.
type Change int

// The changes.
const (
	Add Change = iota
	Set
	Observe
)

// ChangeMetric changes a value of a metric.
func (h *Host) ChangeMetric(handle uint32, change Change, values []string, by float64, mayFall bool) *contract.Error {
	metric := h.metrics[handle]
	fault := func(message string) *contract.Error {
		return failure(contract.Failed, "metric \""+metric.Name+"\": "+message)
	}
	switch {
	case len(values) != len(metric.Labels):
		return fault("it has " + strconv.Itoa(len(metric.Labels)) + " labels, got " + strconv.Itoa(len(values)) + " values")
	case change == Add && (math.IsNaN(by) || math.IsInf(by, 0)), !mayFall && by < 0:
		return fault("the number is negative or not finite")
	}
	for _, value := range values {
		if len(value) > 128 {
			return failure(contract.TooLarge, "metric \""+metric.Name+"\": a value of a label has more than 128 bytes")
		}
	}
	key := SeriesKey(values)
	switch change {
	case Add:
		metric.Values[key] += by
	case Set:
		metric.Values[key] = by
	default:
		metric.Observations[key] = append(metric.Observations[key], by)
	}
	return nil
}

// SeriesKey returns the values of labels as one text.
func SeriesKey(values []string) string {
	quoted := make([]string, len(values))
	for i, value := range values {
		quoted[i] = strconv.Quote(value)
	}
	return strings.Join(quoted, ",")
}
