package hostler

// Transformer turns what an application sends into a model's inputs, and the model's outputs into an
// answer. The package transformer exports it.
type Transformer interface {
	// Preprocess returns the inputs of the model.
	Preprocess(request *Request, input Payload) ([]*Tensor, error)
	// Postprocess is called once for each response of the model.
	Postprocess(request *Request, outputs []*Tensor) (Payload, error)
}

// MetadataTransformer is a transformer that says itself what callers of the Open Inference Protocol
// see as the model's inputs and outputs. Of other transformers, they see those of the model.
type MetadataTransformer interface {
	Transformer
	// Metadata is called once, at load. nil means those of the model.
	Metadata() *Metadata
}

// Model is a plugin that is itself a model. The package model exports it.
type Model interface {
	// Metadata is called once, at load. Inputs are checked against it before Predict is called.
	Metadata() Metadata
	Predict(request *Request, inputs []*Tensor) ([]*Tensor, error)
}

// OptionalModel is a model with inputs that a request may omit. The package optionalmodel exports
// it.
type OptionalModel interface {
	Model
	// OptionalInputs returns names of inputs of the metadata. It is called once, at load. Predict
	// then receives only the tensors that the request contains.
	OptionalInputs() []string
}

// Executor decides how a model is called, for example again, twice at once, from a cache, or another
// model instead. The package executor exports it.
type Executor interface {
	// Submit answers one request. model is the model that it wraps.
	Submit(request *Request, inputs []*Tensor, model *Callable) ([]*Tensor, error)
}

// BatchExecutor is an executor that answers several requests at once. For other executors, the host
// calls Submit for each request.
type BatchExecutor interface {
	Executor
	// SubmitBatch returns one outcome for each request, in their order. The calls that it makes have
	// the latest deadline of all requests. If the error has the kind Unsupported, the host calls
	// Submit for each request instead.
	SubmitBatch(requests []*Request, inputs [][]*Tensor, model *Callable) ([]Outcome, error)
}

// Outcome is the answer to one request of a batch: tensors or an error.
type Outcome struct {
	Tensors []*Tensor
	Err     error
}
