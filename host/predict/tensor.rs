//! Tensors: a name, a datatype, a shape, and bytes that are shared rather than copied.

use super::allocation::Allocation;
use super::datatype::Datatype;
use super::origin::Origin;
use super::shape::{Shape, element_count, format_shape};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::sync::Arc;

/// A tensor: immutable, little-endian, row-major, without padding. Cloning copies no elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(super) name: Arc<str>,
    pub(super) datatype: Datatype,
    pub(super) shape: Shape,
    pub(super) data: Bytes,
    pub(super) origin: Origin,
    pub(super) allocation: Allocation,
}

/// Data up to this length are copied rather than left in a larger allocation. A copy takes a few
/// microseconds, and it frees memory even if the allocation is unknown, such as the buffer of a
/// connection.
const SMALL_BYTES: usize = 64 << 10;

/// The origin and the allocation do not matter.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        let Tensor { name, datatype, shape, data, origin: _, allocation: _ } = self;
        (name, datatype, shape, data) == (&other.name, &other.datatype, &other.shape, &other.data)
    }
}

impl Tensor {
    /// Creates a tensor. Refuses data that do not fit the shape and the datatype.
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

    /// Replaces the data with others that are known to fit.
    pub(super) fn with_data(mut self, data: Bytes) -> Self {
        self.allocation = Allocation::of(&data);
        self.data = data;
        self
    }

    /// Records the buffer that the data are a part of. Has no effect if the data lie elsewhere.
    #[must_use]
    pub fn part_of(mut self, whole: Allocation) -> Self {
        if whole.contains(self.allocation) {
            self.allocation = whole;
        }
        self
    }

    /// Returns the memory that this tensor keeps alive, as far as it is known.
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Returns the bytes that these tensors keep alive. Memory that two of them share counts twice.
    pub fn bytes_kept(tensors: &[Tensor]) -> usize {
        tensors.iter().map(|tensor| tensor.allocation.bytes).sum()
    }

    /// Returns a copy in separate memory if this tensor is small, keeps more than twice its size
    /// alive, or is part of a request. For tensors that outlive a call; the copy no longer counts
    /// as the caller's. An output of a model remains one.
    pub fn detached(&self) -> Option<Self> {
        let length = self.data.len();
        let is_wasteful = length > 0 && (length <= SMALL_BYTES || length < self.allocation.bytes / 2);
        let origin = || if self.is_callers() { Origin::Unknown } else { self.origin.clone() };
        let own = || self.clone().with_data(Bytes::copy_from_slice(&self.data)).made_by(origin());
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

    /// Sets who made the tensor.
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

    /// Returns the number of elements.
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

    /// Iterates over the elements of a `BYTES` tensor.
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

    /// Creates a `BYTES` tensor of these elements.
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
