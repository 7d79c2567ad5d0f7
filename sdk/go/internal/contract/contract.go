// Package contract has the plain data types of the contract, which the packages of this module
// share. The package hostler gives them their public names.
package contract

import "strconv"

// Key is a parameter of functions that only the packages of this module can call.
type Key struct{}

// Datatype is the type of the elements of a tensor.
type Datatype uint8

// The datatypes, in the order of the contract.
const (
	Bool Datatype = iota
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	BF16
	FP32
	FP64
	Bytes
)

var datatypeNames = [...]string{
	"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES",
}

var elementBytes = [...]int{1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 0}

// String returns the name in the Open Inference Protocol, such as FP32.
func (d Datatype) String() string {
	if int(d) < len(datatypeNames) {
		return datatypeNames[d]
	}
	return "Datatype(" + strconv.Itoa(int(d)) + ")"
}

// ElementBytes returns the size of an element in bytes, and 0 for Bytes, whose elements differ in
// size.
func (d Datatype) ElementBytes() int {
	if int(d) < len(elementBytes) {
		return elementBytes[d]
	}
	return 0
}

// Kind decides what the caller of the plugin receives.
type Kind uint8

// The kinds of errors, in the order of the contract.
const (
	InvalidInput Kind = iota
	NotFound
	Unsupported
	TooLarge
	Overloaded
	Unavailable
	Deadline
	Cancelled
	Failed
)

var kindNames = [...]string{
	"invalid-input", "not-found", "unsupported", "too-large", "overloaded", "unavailable", "deadline", "cancelled", "failed",
}

// String returns the name in the contract, such as invalid-input.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Error is an error of the contract.
type Error struct {
	Kind    Kind
	Message string
	// Field is the input field at fault, as a path that the caller can recognise, such as
	// items[3].name. Empty if there is none.
	Field string
}

// Error returns the field and the message.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Spec describes an input or an output.
type Spec struct {
	Name     string
	Datatype Datatype
	// Shape has -1 where a dimension is free. No dimensions is a scalar.
	Shape []int64
}

// Metadata describes a model.
type Metadata struct {
	Inputs, Outputs []Spec
}

// The cases of a payload.
const (
	PayloadJSON = iota
	PayloadBytes
	PayloadTensors
)

// Payload is a payload whose tensors are handles.
type Payload struct {
	Case        int
	ContentType string
	Data        []byte
	Tensors     []uint32
}

// Outcome is what a call has returned.
type Outcome struct {
	Tensors []uint32
	Err     *Error
}

// Header is a header of an HTTP request or response.
type Header struct {
	Name, Value string
}

// HTTPRequest is a request to an HTTP server.
type HTTPRequest struct {
	Method, URL string
	Headers     []Header
	Body        []byte
	// TimeoutMS is negative if there is no timeout.
	TimeoutMS int64
}

// HTTPResponse is the response of an HTTP server.
type HTTPResponse struct {
	Status int
	// Headers have names in lower case.
	Headers []Header
	Body    []byte
}

// Level is the level of a line of the log.
type Level uint8

// The levels, in the order of wasi:logging.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	LevelError
	Critical
)

var levelNames = [...]string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"}

// String returns the name of the level, such as INFO.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "Level(" + strconv.Itoa(int(l)) + ")"
}
