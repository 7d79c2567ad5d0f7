//! The interface `types`: tensors, the request, errors and metadata.

use crate::testing::{RequestData, current_time};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Implements `Debug` as the generated bindings do: with the name of the type.
macro_rules! debug_cases {
    ($type:ident: $($case:ident)*) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $($type::$case => concat!(stringify!($type), "::", stringify!($case)),)*
                })
            }
        }
    };
}

/// The element types of the Open Inference Protocol.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// `u8`.
    Uint8,
    /// `u16`.
    Uint16,
    /// `u32`.
    Uint32,
    /// `u64`.
    Uint64,
    /// `i8`.
    Int8,
    /// `i16`.
    Int16,
    /// `i32`.
    Int32,
    /// `i64`.
    Int64,
    /// IEEE 754 binary16: 5 bits of exponent, 10 of fraction.
    Fp16,
    /// The upper half of an `f32`: 8 bits of exponent, 7 of fraction.
    Bf16,
    /// `f32`.
    Fp32,
    /// `f64`.
    Fp64,
    /// Each element is a 4-byte little-endian length, followed by that many bytes.
    Bytes,
}

debug_cases!(Datatype: Bool Uint8 Uint16 Uint32 Uint64 Int8 Int16 Int32 Int64 Fp16 Bf16 Fp32 Fp64 Bytes);

/// What an error says about its cause. The kind decides the status that the client receives.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub enum ErrorKind {
    /// The caller's input is wrong. `field` names the field.
    InvalidInput,
    /// Something that the caller named does not exist.
    NotFound,
    /// A valid request for something that is not offered.
    Unsupported,
    /// The input or the answer exceeds a limit.
    TooLarge,
    /// A limit is reached for now. The same request may succeed later.
    Overloaded,
    /// Something that the plugin depends on is not available.
    Unavailable,
    /// The deadline of the request has passed.
    Deadline,
    /// The client has disconnected or the call was cancelled.
    Cancelled,
    /// Any other error.
    Failed,
}

debug_cases!(ErrorKind: InvalidInput NotFound Unsupported TooLarge Overloaded Unavailable Deadline Cancelled Failed);

/// An error as the client receives it: a kind, a message and the field at fault.
#[derive(Clone, Debug)]
pub struct Error {
    /// The kind, from which the host takes the status.
    pub kind: ErrorKind,
    /// What was attempted, and why it failed.
    pub message: String,
    /// The input field at fault, as a path that the caller can recognise: `age`, `items[3].name`.
    pub field: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {}

/// An immutable tensor. Its bytes are little-endian, row-major, without padding.
///
/// In a component, the host owns the tensor and this is a handle: passing it on never copies its
/// bytes. In tests, the bytes are in memory and shared.
pub struct Tensor {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Arc<[u8]>,
    /// Whether a model that the plugin called returned it. The shape of such a tensor is not
    /// compared with the plugin's own metadata.
    pub(crate) is_from_model: bool,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {}, {} bytes)", self.name, self.described(), self.data.len())
    }
}

/// The most dimensions of a tensor.
const RANK_MAX: usize = 16;

impl Tensor {
    /// Creates a tensor. The error is `invalid-input` if a dimension is negative, if the shape
    /// times the size of the datatype is not the number of bytes, or if the elements of `BOOL` or
    /// `BYTES` are not well-formed.
    pub fn create(name: &str, datatype: Datatype, shape: &[i64], data: &[u8]) -> Result<Tensor, Error> {
        let wrong = |reason: String| Error::invalid_input(format!("tensor \"{name}\": {reason}"));
        let count = element_count(shape).map_err(wrong)?;
        let (type_name, dimensions) = (datatype.name(), crate::tensor::dimensions(shape));
        if let Some(size) = datatype.element_bytes() {
            let expected = count.checked_mul(size);
            if expected != Some(data.len()) {
                let expected = expected.map_or("more than can be addressed".into(), |n| n.to_string());
                let got = data.len();
                return Err(wrong(format!(
                    "{type_name} of shape {dimensions} needs {expected} bytes, got {got}"
                )));
            }
            if datatype == Datatype::Bool && data.iter().any(|&byte| byte > 1) {
                return Err(wrong("BOOL elements are bytes 0 or 1".into()));
            }
        } else {
            let found = crate::tensor::count_elements(data).map_err(wrong)?;
            if found != count {
                return Err(wrong(format!(
                    "BYTES of shape {dimensions} needs {count} elements, got {found}"
                )));
            }
        }
        Ok(Tensor {
            name: name.into(),
            datatype,
            shape: shape.into(),
            data: data.into(),
            is_from_model: false,
        })
    }

    /// Returns the name.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns the type of the elements.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Returns the dimensions, outermost first. A scalar has none.
    pub fn shape(&self) -> Vec<i64> {
        self.shape.clone()
    }

    /// Returns the number of bytes that [`read`](Self::read) can return in total.
    pub fn byte_length(&self) -> u64 {
        self.data.len() as u64
    }

    /// Returns `length` bytes from `offset`, or fewer if the tensor ends before. Returns an empty
    /// list if `offset` is at or after the end.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        super::assets::range(&self.data, offset, length)
    }

    /// Returns the same data under another name.
    pub fn renamed(&self, name: &str) -> Tensor {
        Tensor { name: name.into(), ..self.copy() }
    }

    /// Returns the same data in another shape with the same number of elements. The error is
    /// `invalid-input` if the number differs.
    pub fn reshaped(&self, shape: &[i64]) -> Result<Tensor, Error> {
        let count = element_count(shape).map_err(Error::invalid_input)?;
        if Ok(count) != element_count(&self.shape) {
            let (from, to) = (crate::tensor::dimensions(&self.shape), crate::tensor::dimensions(shape));
            return Err(Error::invalid_input(format!(
                "tensor \"{}\": cannot reshape {from} to {to}: the number of elements differs",
                self.name
            )));
        }
        let is_from_model = self.is_from_model && self.shape == shape;
        Ok(Tensor { shape: shape.into(), is_from_model, ..self.copy() })
    }

    /// Returns this tensor as one that a called model has returned.
    pub(crate) fn of_a_model(self) -> Tensor {
        Tensor { is_from_model: true, ..self }
    }

    /// Returns another handle of the same tensor.
    pub(crate) fn copy(&self) -> Tensor {
        Tensor {
            name: self.name.clone(),
            datatype: self.datatype,
            shape: self.shape.clone(),
            data: Arc::clone(&self.data),
            is_from_model: self.is_from_model,
        }
    }
}

pub(crate) fn copies<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<Tensor> {
    tensors.into_iter().map(Tensor::copy).collect()
}

fn element_count(shape: &[i64]) -> Result<usize, String> {
    if shape.len() > RANK_MAX {
        return Err(format!("{} dimensions; at most {RANK_MAX} are supported", shape.len()));
    }
    shape.iter().try_fold(1_usize, |count, &dimension| {
        let shown = || crate::tensor::dimensions(shape);
        let dimension =
            usize::try_from(dimension).map_err(|_| format!("shape {} has a negative dimension", shown()))?;
        count
            .checked_mul(dimension)
            .filter(|&count| isize::try_from(count).is_ok())
            .ok_or_else(|| format!("shape {} has more elements than can be addressed", shown()))
    })
}

/// Content other than JSON and tensors, such as an image.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The media type, such as `image/png`.
    pub content_type: String,
    /// The content.
    pub data: Vec<u8>,
}

/// What an application sent, or the answer that it receives.
#[derive(Debug)]
pub enum Payload {
    /// The text of one JSON value.
    Json(String),
    /// Any other content, such as an image.
    Bytes(Blob),
    /// Tensors of the Open Inference Protocol.
    Tensors(Vec<Tensor>),
}

/// The value of a request parameter.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(String),
}

/// The request that a call belongs to. Must not be used after the call that received it.
///
/// In tests, [`Host::request`](crate::testing::Host::request) creates it.
#[derive(Debug)]
pub struct Request(pub(crate) Arc<Mutex<RequestData>>);

/// The most bytes of a note.
const NOTE_BYTES_MAX: usize = 1 << 20;

impl Request {
    pub(crate) fn get(&self) -> MutexGuard<'_, RequestData> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the request id: the caller's, or one that the host generated.
    pub fn id(&self) -> String {
        self.get().id.clone()
    }

    /// Returns the name of the requested model.
    pub fn model(&self) -> String {
        self.get().model.clone()
    }

    /// Returns the version of the requested model.
    pub fn version(&self) -> String {
        self.get().version.clone()
    }

    /// Returns the milliseconds until this call is stopped, at the earlier of the request's
    /// deadline and the plugin's own timeout. `None` if there is neither.
    pub fn time_left(&self) -> Option<u64> {
        let deadline = self.get().deadline?;
        Some(deadline.saturating_sub(current_time()).as_millis() as u64)
    }

    /// Returns whether the client has disconnected or the call was cancelled.
    pub fn cancelled(&self) -> bool {
        self.get().cancelled_at.is_some_and(|at| at <= current_time())
    }

    /// Returns the parameter with this name.
    pub fn parameter(&self, name: &str) -> Option<Parameter> {
        self.get().parameters.get(name).cloned()
    }

    /// Returns the names of all parameters.
    pub fn parameter_names(&self) -> Vec<String> {
        self.get().parameters.keys().cloned().collect()
    }

    /// Returns the bytes that an earlier call for the same request stored with
    /// [`set_note`](Self::set_note); empty at first. Preprocess and postprocess may run in
    /// different instances and pass data this way.
    pub fn note(&self) -> Vec<u8> {
        self.get().note.clone()
    }

    /// Stores the note. More than 1 MiB traps.
    pub fn set_note(&self, data: &[u8]) {
        let length = data.len();
        assert!(
            length <= NOTE_BYTES_MAX,
            "set a note of {length} bytes; at most {NOTE_BYTES_MAX} are allowed"
        );
        self.get().note = data.to_vec();
    }
}

/// An input or output of a model.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// The name, unique among the inputs and among the outputs.
    pub name: String,
    /// The type of the elements.
    pub datatype: Datatype,
    /// -1 where a dimension is free. A shape without dimensions is a scalar.
    pub shape: Vec<i64>,
}

/// The inputs and outputs of a model.
#[derive(Clone, Debug)]
pub struct ModelMetadata {
    /// What a request contains.
    pub inputs: Vec<TensorSpec>,
    /// What a response contains.
    pub outputs: Vec<TensorSpec>,
}

/// The inputs and outputs of a streaming model.
#[derive(Clone, Debug)]
pub struct StreamingMetadata {
    /// What a request contains.
    pub inputs: Vec<TensorSpec>,
    /// What each response contains.
    pub outputs: Vec<TensorSpec>,
    /// Whether a request has 0..n responses. If not, it has exactly one.
    pub streaming: bool,
}
