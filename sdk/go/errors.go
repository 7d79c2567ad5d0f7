package hostler

import (
	"errors"
	"hostler/internal/contract"
)

// Error is an error of the contract: what the caller of the plugin receives. A function of a plugin
// may return any error. One that is no *Error and wraps none becomes the kind Failed.
type Error = contract.Error

// ErrorKind decides what the caller of the plugin receives.
type ErrorKind = contract.Kind

// The kinds of errors.
const (
	// InvalidInput: the caller's input is wrong. Field names the field.
	InvalidInput = contract.InvalidInput
	// NotFound: something that the caller named does not exist.
	NotFound = contract.NotFound
	// Unsupported: a valid request for something that is not offered.
	Unsupported = contract.Unsupported
	// TooLarge: the input or the answer exceeds a limit.
	TooLarge = contract.TooLarge
	// Overloaded: a limit is reached for now. The same request may succeed later.
	Overloaded = contract.Overloaded
	// Unavailable: something that the plugin depends on is not available.
	Unavailable = contract.Unavailable
	// DeadlineExceeded: the deadline of the request has passed.
	DeadlineExceeded = contract.Deadline
	// Cancelled: the client has disconnected or the call was cancelled.
	Cancelled = contract.Cancelled
	// Failed: any other error.
	Failed = contract.Failed
)

// Invalid returns the error for a field of the caller's input, a path such as items[3].name. The
// field may be empty.
func Invalid(field, message string) *Error {
	return &Error{Kind: InvalidInput, Message: message, Field: field}
}

// NewError returns an error of any kind, without a field.
func NewError(kind ErrorKind, message string) *Error {
	return &Error{Kind: kind, Message: message}
}

// KindOf returns the kind of an error: that of the *Error that it is or wraps, and otherwise Failed.
func KindOf(err error) ErrorKind {
	var own *Error
	if errors.As(err, &own) && own != nil {
		return own.Kind
	}
	return Failed
}

// contractError returns what the caller receives for an error.
func contractError(err error) *Error {
	var own *Error
	if !errors.As(err, &own) {
		return NewError(Failed, err.Error())
	}
	if own == nil {
		return NewError(Failed, "the error is a nil *hostler.Error in a variable of the type error, which is not nil; declare the variable as error, or return nil")
	}
	if own == err {
		return own
	}
	// The error wraps one of the contract: its text says more, its kind and field are the same.
	return &Error{Kind: own.Kind, Message: err.Error(), Field: own.Field}
}
