//! Tensors: a name, a datatype, a shape and bytes that are never copied on their way.

use super::origin::Origin;
use crate::error::{Error, Result};
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::Arc;

/// Dimensions, outermost first. In metadata -1 is a free dimension; a tensor has none.
pub type Shape = SmallVec<[i64; 4]>;

/// The most dimensions that a tensor may have.
pub const MAX_RANK: usize = 16;

/// The element types of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    pub const ALL: [Datatype; 14] = [
        Datatype::Bool,
        Datatype::Uint8,
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Fp16,
        Datatype::Bf16,
        Datatype::Fp32,
        Datatype::Fp64,
        Datatype::Bytes,
    ];

    /// The name in the Open Inference Protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::Uint8 => "UINT8",
            Datatype::Uint16 => "UINT16",
            Datatype::Uint32 => "UINT32",
            Datatype::Uint64 => "UINT64",
            Datatype::Int8 => "INT8",
            Datatype::Int16 => "INT16",
            Datatype::Int32 => "INT32",
            Datatype::Int64 => "INT64",
            Datatype::Fp16 => "FP16",
            Datatype::Bf16 => "BF16",
            Datatype::Fp32 => "FP32",
            Datatype::Fp64 => "FP64",
            Datatype::Bytes => "BYTES",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.as_str() == name)
    }

    /// Bytes of one element; `BYTES` has none that is fixed.
    pub fn size(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => Some(1),
            Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
            Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
            Datatype::Bytes => None,
        }
    }
}

/// Immutable, little-endian, row-major, without padding. Cloning copies no elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(super) name: Arc<str>,
    pub(super) datatype: Datatype,
    pub(super) shape: Shape,
    pub(super) data: Bytes,
    pub(super) origin: Origin,
    pub(super) allocation: Allocation,
}

/// The memory that a tensor's data keep alive: all of what they are a part of, such as the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Unique as long as the memory is kept.
    pub address: usize,
    pub bytes: usize,
}

impl Allocation {
    pub fn of(whole: &[u8]) -> Self {
        Allocation { address: whole.as_ptr() as usize, bytes: whole.len() }
    }

    /// What reaches from the first of these parts to the last. For parts of one buffer that itself is out of reach; none if
    /// they are too far from each other for that.
    pub fn spanning(parts: &[Bytes]) -> Option<Self> {
        const BETWEEN_BYTES_MAX: usize = 1 << 20;
        let filled = || parts.iter().filter(|part| !part.is_empty()).map(|part| Allocation::of(part));
        let address = filled().map(|part| part.address).min()?;
        let bytes = filled().map(|part| part.address + part.bytes).max()? - address;
        let sum: usize = filled().map(|part| part.bytes).sum();
        (bytes <= sum.saturating_add(BETWEEN_BYTES_MAX)).then_some(Allocation { address, bytes })
    }

    fn contains(self, other: Allocation) -> bool {
        self.address <= other.address && other.address + other.bytes <= self.address + self.bytes
    }
}

/// Data up to this long are copied rather than left in a larger allocation: that costs a few microseconds, and even where
/// the allocation is not known, as with the buffer of a connection, nothing large is kept for little.
const SMALL_BYTES: usize = 64 << 10;

/// Who made a tensor and where it lies makes no difference.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        let Tensor { name, datatype, shape, data, origin: _, allocation: _ } = self;
        (name, datatype, shape, data) == (&other.name, &other.datatype, &other.shape, &other.data)
    }
}

impl Tensor {
    /// Refuses data that does not fit shape and datatype.
    pub fn new(name: impl Into<Arc<str>>, datatype: Datatype, shape: Shape, data: Bytes) -> Result<Self> {
        let name = name.into();
        let count = element_count(&shape).map_err(|error| error.context(format!("tensor \"{name}\"")))?;
        match datatype.size() {
            Some(size) => {
                let expected = count.checked_mul(size);
                if expected != Some(data.len()) {
                    let expected =
                        expected.map_or_else(|| "more than can be addressed".into(), |n| n.to_string());
                    return Err(Error::invalid(format!(
                        "tensor \"{name}\": {} of shape {} needs {expected} bytes, got {}",
                        datatype.as_str(),
                        format_shape(&shape),
                        data.len()
                    )));
                }
                if datatype == Datatype::Bool && data.iter().any(|&byte| byte > 1) {
                    return Err(Error::invalid(format!("tensor \"{name}\": BOOL elements are bytes 0 or 1")));
                }
            }
            None => {
                let found = count_bytes_elements(&data)
                    .map_err(|error| error.context(format!("tensor \"{name}\"")))?;
                if found != count {
                    return Err(Error::invalid(format!(
                        "tensor \"{name}\": BYTES of shape {} needs {count} elements, got {found}",
                        format_shape(&shape)
                    )));
                }
            }
        }
        let allocation = Allocation::of(&data);
        Ok(Tensor { name, datatype, shape, data, origin: Origin::Unknown, allocation })
    }

    /// The same with other data, which are known to fit.
    pub(super) fn with_data(mut self, data: Bytes) -> Self {
        self.allocation = Allocation::of(&data);
        self.data = data;
        self
    }

    /// Notes what the data are a part of. Data that lie elsewhere stay as they are.
    #[must_use]
    pub fn part_of(mut self, whole: Allocation) -> Self {
        if whole.contains(self.allocation) {
            self.allocation = whole;
        }
        self
    }

    /// The memory that this tensor keeps alive, as far as it is known.
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// The memory that all of these keep alive. What two of them share counts twice.
    pub fn bytes_kept(tensors: &[Tensor]) -> usize {
        tensors.iter().map(|tensor| tensor.allocation.bytes).sum()
    }

    /// A copy in memory of its own, if this one is small, keeps more than twice of what it needs, or is a part of a
    /// request. For what keeps tensors for longer than a call: in a later one, this tensor did not come from the caller.
    pub fn detached(&self) -> Option<Self> {
        let length = self.data.len();
        let is_wasteful = length > 0 && (length <= SMALL_BYTES || length < self.allocation.bytes / 2);
        let own = || self.clone().with_data(Bytes::copy_from_slice(&self.data)).made_by(Origin::Unknown);
        (is_wasteful || self.is_callers()).then(own)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Says who made it.
    pub fn made_by(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub fn is_callers(&self) -> bool {
        matches!(self.origin, Origin::Caller)
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        element_count(&self.shape).expect("invariant: the shape was checked when the tensor was made")
    }

    pub fn renamed(&self, name: impl Into<Arc<str>>) -> Self {
        Tensor { name: name.into(), ..self.clone() }
    }

    pub fn reshaped(&self, shape: Shape) -> Result<Self> {
        let count = element_count(&shape)?;
        if count != self.count() {
            return Err(Error::invalid(format!(
                "tensor \"{}\": cannot reshape {} to {}: the number of elements differs",
                self.name,
                format_shape(&self.shape),
                format_shape(&shape)
            )));
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// The elements of a `BYTES` tensor.
    pub fn elements(&self) -> impl Iterator<Item = &[u8]> {
        debug_assert_eq!(self.datatype, Datatype::Bytes);
        let mut rest = &self.data[..];
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (element, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
            rest = tail;
            Some(element)
        })
    }

    /// A `BYTES` tensor of these elements.
    pub fn from_elements<E: AsRef<[u8]>>(
        name: impl Into<Arc<str>>,
        shape: Shape,
        elements: impl IntoIterator<Item = E>,
    ) -> Result<Self> {
        let mut data = Vec::new();
        for element in elements {
            append_element(&mut data, element.as_ref())?;
        }
        Tensor::new(name, Datatype::Bytes, shape, data.into())
    }
}

/// Appends one element in the wire form of `BYTES`: a 4-byte little-endian length, then the bytes.
pub fn append_element(data: &mut Vec<u8>, element: &[u8]) -> Result<()> {
    let length = u32::try_from(element.len())
        .map_err(|_| Error::too_large("an element of a BYTES tensor is over 4 GiB"))?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    Ok(())
}

/// The product of the dimensions; refuses negative ones and overflow.
pub fn element_count(shape: &[i64]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(Error::invalid(format!("{} dimensions; at most {MAX_RANK} are supported", shape.len())));
    }
    shape.iter().try_fold(1_usize, |count, &dimension| {
        let dimension = usize::try_from(dimension)
            .map_err(|_| Error::invalid(format!("shape {} has a negative dimension", format_shape(shape))))?;
        count.checked_mul(dimension).filter(|&count| count <= isize::MAX as usize).ok_or_else(|| {
            Error::invalid(format!(
                "shape {} has more elements than can be addressed: it causes total element count to exceed maximum \
                 size of {}",
                format_shape(shape),
                isize::MAX
            ))
        })
    })
}

/// `[1,-1,3]`
pub fn format_shape(shape: &[i64]) -> String {
    let dimensions: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", dimensions.join(","))
}

fn count_bytes_elements(data: &[u8]) -> Result<usize> {
    let mut rest = data;
    let mut count = 0;
    while !rest.is_empty() {
        let element = rest
            .split_first_chunk::<4>()
            .and_then(|(length, tail)| tail.get(u32::from_le_bytes(*length) as usize..));
        rest = element
            .ok_or_else(|| Error::invalid(format!("BYTES data ends in the middle of element {count}")))?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn tensor(datatype: Datatype, shape: &[i64], length: usize) -> Result<Tensor> {
        Tensor::new("x", datatype, shape.into(), vec![0; length].into())
    }

    #[test]
    fn data_must_fit_shape_and_datatype() {
        assert!(tensor(Datatype::Fp32, &[2, 3], 24).is_ok());
        assert!(tensor(Datatype::Fp32, &[2, 0], 0).is_ok());
        assert!(tensor(Datatype::Fp32, &[], 4).is_ok());
        for (shape, length) in [(&[2_i64, 3][..], 23), (&[-1, 3], 12), (&[1, 1_000_000_000_000], 4)] {
            let error = tensor(Datatype::Fp32, shape, length).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::InvalidInput);
        }
        let overflow = tensor(Datatype::Fp64, &[i64::MAX, i64::MAX], 8).unwrap_err();
        assert!(overflow.message().contains("more elements than can be addressed"), "{overflow}");
    }

    #[test]
    fn a_part_knows_its_whole_and_can_leave_it() {
        let body = Bytes::from(vec![7; 1 << 20]);
        let part = |length: usize| {
            let data = body.slice(8..8 + length);
            Tensor::new("x", Datatype::Int8, smallvec![length as i64], data)
                .unwrap()
                .part_of(Allocation::of(&body))
        };
        let small = part(5);
        assert_eq!(small.renamed("y").allocation(), Allocation::of(&body));
        assert_eq!(small.reshaped(smallvec![5, 1]).unwrap().allocation().bytes, 1 << 20);
        let own = small.detached().unwrap();
        assert_eq!((own.allocation().bytes, &own), (5, &small));
        assert!(part(400 << 10).detached().is_some(), "less than half of the body");
        assert!(part(600 << 10).detached().is_none(), "a copy would save too little");
        let callers = part(600 << 10).made_by(Origin::Caller).detached().unwrap();
        assert!(!callers.is_callers() && callers.allocation().bytes == 600 << 10);
        assert_eq!(own.part_of(Allocation::of(&body)).allocation().bytes, 5, "it lies elsewhere");
        let parts = [body.slice(3..9), Bytes::new(), body.slice(100..200)];
        let expected = Allocation { address: body.as_ptr() as usize + 3, bytes: 197 };
        assert_eq!(Allocation::spanning(&parts), Some(expected));
        assert_eq!(Allocation::spanning(&[Bytes::new()]), None);
    }

    #[test]
    fn bytes_elements_round_trip_and_are_checked() {
        let tensor = Tensor::from_elements("x", smallvec![2], ["a", "bcd"]).unwrap();
        assert_eq!(tensor.elements().collect::<Vec<_>>(), [&b"a"[..], b"bcd"]);
        let cut = tensor.data().slice(..tensor.data().len() - 1);
        let error = Tensor::new("x", Datatype::Bytes, smallvec![2], cut).unwrap_err();
        assert!(error.message().contains("in the middle of element 1"), "{error}");
        assert!(tensor.reshaped(smallvec![3]).is_err());
        assert_eq!(tensor.reshaped(smallvec![1, 2]).unwrap().shape(), [1, 2]);
    }
}
