// Package host has the functions that the host offers to a plugin. In a component they are the
// imports of the contract. On every other target they call a stand-in, which the package hostlertest
// sets.
//
// Tensors, requests, models and calls are handles. A handle that is passed as an input remains the
// plugin's.
package host

import "hostler/internal/contract"

// Short names for the types of the contract.
type (
	errorOf  = contract.Error
	datatype = contract.Datatype
)

// NoTimeout is a timeout or a time to live that is not there.
const NoTimeout int64 = -1

// The types of a parameter.
const (
	ParameterBool = iota
	ParameterInteger
	ParameterNumber
	ParameterText
)

// The kinds of metrics.
const (
	Counter = iota
	Gauge
	Histogram
)
