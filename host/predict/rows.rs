//! Stacks tensors along their first dimension and cuts them again, as batches need.

use super::datatype::Datatype;
use super::shape::{element_count, format_shape};
use super::tensor::Tensor;
use crate::error::{Error, Result};
use bytes::Bytes;

impl Tensor {
    /// Returns the first dimension; `None` for a scalar.
    pub fn rows(&self) -> Option<usize> {
        self.shape.first().map(|&rows| rows as usize)
    }

    /// Returns true if the tensors differ only in their rows.
    pub fn stacks_on(&self, other: &Tensor) -> bool {
        self.name == other.name
            && self.datatype == other.datatype
            && !self.shape.is_empty()
            && !other.shape.is_empty()
            && self.shape[1..] == other.shape[1..]
    }

    /// Stacks the rows of all parts in one tensor, in order, with one copy. Refuses parts that do
    /// not stack.
    pub fn stacked<'a>(parts: impl Iterator<Item = &'a Tensor> + Clone) -> Result<Tensor> {
        let first = parts.clone().next().ok_or_else(|| Error::failed("no tensors to stack"))?;
        let (mut rows, mut length) = (0, 0);
        for part in parts.clone() {
            if !part.stacks_on(first) {
                return Err(Error::failed(format!(
                    "tensors \"{}\" cannot be stacked: their datatypes or shapes differ",
                    first.name
                )));
            }
            rows += part.shape[0];
            length += part.data.len();
        }
        let mut data = Vec::with_capacity(length);
        parts.for_each(|part| data.extend_from_slice(&part.data));
        let mut shape = first.shape.clone();
        shape[0] = rows;
        // Each part is well-formed, and elements of any datatype can be concatenated, so nothing is
        // checked.
        Ok(Tensor { shape, ..first.clone() }.with_data(data.into()))
    }

    /// Cuts into parts with these numbers of rows, which must add up to all rows. Copies no
    /// elements.
    pub fn cut(&self, rows: &[usize]) -> Result<Vec<Tensor>> {
        let all: usize = rows.iter().sum();
        if self.rows() != Some(all) {
            return Err(Error::failed(format!(
                "tensor \"{}\" has shape {}, expected {all} rows",
                self.name,
                format_shape(&self.shape)
            )));
        }
        let mut rest = self.data.clone();
        let elements_per_row = element_count(&self.shape)?.checked_div(all).unwrap_or(0);
        let part = |&rows: &usize| {
            let elements = rows * elements_per_row;
            let length = match self.datatype {
                Datatype::Bytes => length_of(&rest, elements),
                datatype => elements * datatype.size().unwrap_or_default(),
            };
            let mut shape = self.shape.clone();
            shape[0] = rows as i64;
            Tensor { shape, data: rest.split_to(length), ..self.clone() }
        };
        Ok(rows.iter().map(part).collect())
    }
}

/// Returns the bytes that this many elements of a well-formed `BYTES` tensor take.
fn length_of(data: &Bytes, elements: usize) -> usize {
    let mut end = 0;
    for _ in 0..elements {
        let length = data[end..].first_chunk::<4>().expect("invariant: checked when the tensor was made");
        end += 4 + u32::from_le_bytes(*length) as usize;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::Shape;
    use super::*;
    use smallvec::smallvec;

    /// Returns a tensor of `rows` different rows of two elements.
    fn tensor(datatype: Datatype, rows: usize, seed: usize) -> Tensor {
        let shape: Shape = smallvec![rows as i64, 2];
        match datatype.size() {
            None => {
                let text = |index: usize| "x".repeat((seed + index * 7) % 11);
                Tensor::from_elements("t", shape, (0..rows * 2).map(text)).unwrap()
            }
            Some(size) => {
                let modulus = if datatype == Datatype::Bool { 2 } else { 251 };
                let bytes = (0..rows * 2 * size).map(|index| ((seed + index * 3) % modulus) as u8);
                Tensor::new("t", datatype, shape, bytes.collect::<Vec<_>>().into()).unwrap()
            }
        }
    }

    #[test]
    fn what_is_stacked_is_cut_into_the_same_parts() {
        for datatype in Datatype::ALL {
            for rows in [&[1, 1, 1][..], &[3, 1, 2], &[0, 2, 0], &[0, 0], &[5]] {
                let parts: Vec<Tensor> =
                    rows.iter().enumerate().map(|(index, &rows)| tensor(datatype, rows, index)).collect();
                let stacked = Tensor::stacked(parts.iter()).unwrap();
                let all: usize = rows.iter().sum();
                assert_eq!(stacked.shape(), [all as i64, 2], "{datatype:?} {rows:?}");
                // It equals a tensor that was checked.
                let checked =
                    Tensor::new("t", datatype, stacked.shape().into(), stacked.data().clone()).unwrap();
                assert_eq!(checked, stacked);
                assert_eq!(stacked.cut(rows).unwrap(), parts, "{datatype:?} {rows:?}");
            }
        }
    }

    #[test]
    fn parts_share_the_memory_of_the_whole() {
        let whole = tensor(Datatype::Fp32, 4, 0);
        let parts = whole.cut(&[1, 3]).unwrap();
        assert_eq!(parts[1].data().as_ptr(), whole.data()[8..].as_ptr());
        assert_eq!(parts[1].allocation(), whole.allocation(), "it keeps the whole alive");
    }

    #[test]
    fn rows_without_elements_and_rows_alone_are_kept_apart() {
        let empty = Tensor::new("t", Datatype::Fp32, smallvec![3, 0], Bytes::new()).unwrap();
        let parts = empty.cut(&[1, 2]).unwrap();
        assert_eq!((parts[0].shape(), parts[1].shape()), (&[1, 0][..], &[2, 0][..]));
        let flat = Tensor::new("t", Datatype::Int8, smallvec![3], vec![7, 8, 9].into()).unwrap();
        let data: Vec<Bytes> = flat.cut(&[2, 1]).unwrap().iter().map(|part| part.data().clone()).collect();
        assert_eq!(data, [&[7, 8][..], &[9]]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = tensor(Datatype::Fp32, 2, 0);
        let others = [
            good.renamed("u"),
            tensor(Datatype::Int32, 2, 0),
            good.reshaped(smallvec![4]).unwrap(),
            good.reshaped(smallvec![2, 2, 1]).unwrap(),
            Tensor::new("t", Datatype::Fp32, smallvec![], vec![0; 4].into()).unwrap(),
        ];
        for other in &others {
            assert!(!good.stacks_on(other) && !other.stacks_on(&good), "{other:?}");
            assert!(Tensor::stacked([&good, other].into_iter()).is_err(), "{other:?}");
        }
        for (rows, all) in [(&[1][..], 1), (&[1, 2], 3), (&[], 0)] {
            let expected = format!("expected {all} rows");
            assert!(good.cut(rows).unwrap_err().message().contains(&expected), "{rows:?}");
        }
        assert!(others[4].cut(&[1]).is_err(), "a scalar has no rows");
    }
}
