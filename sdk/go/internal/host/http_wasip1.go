package host

import (
	"hostler/internal/abi"
	"hostler/internal/contract"
	"runtime"
	"unsafe"
)

//go:wasmimport hostler:plugin/http@0.1.0 fetch
func httpFetch(method, url string, headers unsafe.Pointer, headersLength uint32, body unsafe.Pointer, bodyLength uint32, isSome uint32, timeoutMS uint64, to unsafe.Pointer)

func HTTPFetch(request contract.HTTPRequest) (contract.HTTPResponse, *errorOf) {
	method, url := abi.Text(request.Method), abi.Text(request.URL)
	pairs := make([]string, 0, 2*len(request.Headers))
	for _, header := range request.Headers {
		pairs = append(pairs, header.Name, header.Value)
	}
	call := abi.Begin()
	defer call.End()
	// A pair of strings has the layout of two strings.
	headers := abi.Strings(pairs)
	isSome, timeout := option(request.TimeoutMS)
	httpFetch(method, url, abi.Pointer(headers), uint32(len(request.Headers)), abi.Pointer(request.Body), uint32(len(request.Body)), isSome, timeout, abi.Area())
	runtime.KeepAlive(request.Body)
	r := abi.Results()
	if err := onlyError(r); err != nil {
		return contract.HTTPResponse{}, err
	}
	response := contract.HTTPResponse{Status: int(r.Uint16(4)), Body: r.Bytes(16)}
	if length := int(r.Uint32(12)); length > 0 {
		list := abi.At(r.Uint32(8))
		response.Headers = make([]contract.Header, length)
		for i := range response.Headers {
			response.Headers[i] = contract.Header{Name: list.String(16 * i), Value: list.String(16*i + 8)}
		}
	}
	return response, nil
}
