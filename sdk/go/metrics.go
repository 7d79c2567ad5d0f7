package hostler

import (
	"hostler/internal/host"
	"math"
	"strconv"
	"strings"
)

// Metrics are for the operator. They belong to the plugin and outlive its instances.
var Metrics MetricsRegistry

// MetricsRegistry is the type of [Metrics].
type MetricsRegistry struct{}

// Count adds to hostler_plugin_events_total{plugin, name}. A name has 1 to 64 letters, digits and
// '_'. Any other name and the 65th name end the instance.
func (MetricsRegistry) Count(name string, by uint64) {
	host.MetricsCount(name, by)
}

// Set sets hostler_plugin_value{plugin, name}. Names are those of Count.
func (MetricsRegistry) Set(name string, value float64) {
	host.MetricsSet(name, value)
}

// metric is a metric of the host. Its handle is looked up by its definition, because a plugin may
// create the same metric in each call.
type metric struct {
	kind       int
	name, help string
	labels     []string
	buckets    []float64
}

// known has the handles of metrics by their definitions. They are few: the host allows 64.
var known = map[string]uint32{}

var knownIn = 0

func (m *metric) handle() (uint32, *Error) {
	// In tests, each host has metrics of its own.
	if generation := host.Generation(); generation != knownIn {
		clear(known)
		knownIn = generation
	}
	key := m.key()
	if handle, is := known[key]; is {
		return handle, nil
	}
	var handle uint32
	var err *Error
	switch m.kind {
	case host.Counter:
		handle, err = host.CounterCreate(m.name, m.help, m.labels)
	case host.Gauge:
		handle, err = host.GaugeCreate(m.name, m.help, m.labels)
	default:
		handle, err = host.HistogramCreate(m.name, m.help, m.labels, m.buckets)
	}
	if err == nil {
		known[key] = handle
	}
	return handle, err
}

func (m *metric) key() string {
	var key strings.Builder
	for _, text := range append([]string{strconv.Itoa(m.kind), m.name, m.help}, m.labels...) {
		key.WriteString(strconv.Quote(text))
	}
	for _, bucket := range m.buckets {
		key.WriteString(strconv.FormatUint(math.Float64bits(bucket), 16))
		key.WriteByte(',')
	}
	return key.String()
}

// Counter is a value that only increases: hostler_plugin_counter_<name>_total.
type Counter struct{ metric metric }

// NewCounter creates a metric, or returns the existing one. help has 1 to 256 bytes; there are at
// most 8 labels. The error is Failed for an invalid definition and for one that differs from the
// existing one, and TooLarge beyond a limit.
func NewCounter(name, help string, labels ...string) (*Counter, error) {
	counter := &Counter{metric{kind: host.Counter, name: name, help: help, labels: labels}}
	_, err := counter.metric.handle()
	return counter, errorOrNil(err)
}

// Add adds a number that is not negative. values are those of the labels, in their order, of at most
// 128 bytes each. The error is Failed for another number of values and for a number that is negative
// or not finite, and TooLarge beyond a limit.
func (c *Counter) Add(by float64, values ...string) error {
	handle, err := c.metric.handle()
	if err == nil {
		err = host.CounterAdd(handle, values, by)
	}
	return errorOrNil(err)
}

// Gauge is a value that can increase and decrease: hostler_plugin_gauge_<name>.
type Gauge struct{ metric metric }

// NewGauge is like NewCounter.
func NewGauge(name, help string, labels ...string) (*Gauge, error) {
	gauge := &Gauge{metric{kind: host.Gauge, name: name, help: help, labels: labels}}
	_, err := gauge.metric.handle()
	return gauge, errorOrNil(err)
}

// Set sets the value.
func (g *Gauge) Set(value float64, values ...string) error {
	handle, err := g.metric.handle()
	if err == nil {
		err = host.GaugeSet(handle, values, value)
	}
	return errorOrNil(err)
}

// Add adds a number, which may be negative.
func (g *Gauge) Add(by float64, values ...string) error {
	handle, err := g.metric.handle()
	if err == nil {
		err = host.GaugeAdd(handle, values, by)
	}
	return errorOrNil(err)
}

// Histogram is a distribution of values: hostler_plugin_histogram_<name>.
type Histogram struct{ metric metric }

// NewHistogram is like NewCounter. buckets are at most 32 ascending upper bounds.
func NewHistogram(name, help string, buckets []float64, labels ...string) (*Histogram, error) {
	histogram := &Histogram{metric{kind: host.Histogram, name: name, help: help, labels: labels, buckets: buckets}}
	_, err := histogram.metric.handle()
	return histogram, errorOrNil(err)
}

// Observe adds an observation.
func (h *Histogram) Observe(value float64, values ...string) error {
	handle, err := h.metric.handle()
	if err == nil {
		err = host.HistogramObserve(handle, values, value)
	}
	return errorOrNil(err)
}
