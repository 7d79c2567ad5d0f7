package hostler

import (
	"hostler/internal/contract"
	"hostler/internal/host"
	"strconv"
	"strings"
	"time"
)

// HTTPHeader is a header of a request or a response.
type HTTPHeader = contract.Header

// HTTPRequest is a request to an HTTP server that the manifest allows.
type HTTPRequest struct {
	// Method is in upper case. Empty is GET.
	Method  string
	URL     string
	Headers []HTTPHeader
	Body    []byte
	// Timeout is the time from the call to the last byte of the response, in milliseconds, if it is
	// not 0 and shorter than the manifest's.
	Timeout time.Duration
}

// HTTPResponse is the response of a server, with any status.
type HTTPResponse struct {
	Status  int
	Headers []HTTPHeader
	Body    []byte
}

// Fetch sends a request and waits for the whole response. A response with any status is a result.
// Redirects are not followed. The error means that there is no response: Unsupported if the server is
// not allowed, Unavailable, DeadlineExceeded, TooLarge, Overloaded, or InvalidInput for a request
// that is not valid.
func Fetch(request HTTPRequest) (*HTTPResponse, error) {
	raw := contract.HTTPRequest{
		Method: request.Method, URL: request.URL, Headers: request.Headers, Body: request.Body, TimeoutMS: host.NoTimeout,
	}
	if raw.Method == "" {
		raw.Method = "GET"
	}
	if request.Timeout > 0 {
		raw.TimeoutMS = max(1, request.Timeout.Milliseconds())
	}
	response, err := host.HTTPFetch(raw)
	if err != nil {
		return nil, err
	}
	return &HTTPResponse{Status: response.Status, Headers: response.Headers, Body: response.Body}, nil
}

// Header returns the first header with a name; the case of letters does not matter.
func (r *HTTPResponse) Header(name string) (string, bool) {
	for _, header := range r.Headers {
		if strings.EqualFold(header.Name, name) {
			return header.Value, true
		}
	}
	return "", false
}

// Success returns the error Failed unless the status is 2xx.
func (r *HTTPResponse) Success() error {
	if r.Status >= 200 && r.Status < 300 {
		return nil
	}
	return NewError(Failed, "the server answered with the status "+strconv.Itoa(r.Status))
}
