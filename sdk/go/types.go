package hostler

import "hostler/internal/contract"

// Datatype is the type of the elements of a tensor, as in the Open Inference Protocol.
type Datatype = contract.Datatype

// The datatypes. The elements of Bytes are texts or other sequences of bytes.
const (
	Bool   = contract.Bool
	Uint8  = contract.Uint8
	Uint16 = contract.Uint16
	Uint32 = contract.Uint32
	Uint64 = contract.Uint64
	Int8   = contract.Int8
	Int16  = contract.Int16
	Int32  = contract.Int32
	Int64  = contract.Int64
	FP16   = contract.FP16
	BF16   = contract.BF16
	FP32   = contract.FP32
	FP64   = contract.FP64
	Bytes  = contract.Bytes
)

// TensorSpec describes an input or an output. Its Shape has -1 where a dimension is free.
type TensorSpec = contract.Spec

// Metadata describes the inputs and the outputs of a model.
type Metadata = contract.Metadata

// Spec returns a TensorSpec. -1 is a free dimension; no dimensions is a scalar.
func Spec(name string, datatype Datatype, shape ...int64) TensorSpec {
	return TensorSpec{Name: name, Datatype: datatype, Shape: shape}
}

// Payload is what an application has sent, or what it receives: [JSON], [Blob] or [Tensors].
type Payload interface {
	isPayload()
}

// JSON is a payload with the text of one JSON value.
type JSON []byte

// Blob is a payload with any other content, such as a picture.
type Blob struct {
	ContentType string
	Data        []byte
}

// Tensors is a payload of tensors.
type Tensors []*Tensor

func (JSON) isPayload()    {}
func (Blob) isPayload()    {}
func (Tensors) isPayload() {}
