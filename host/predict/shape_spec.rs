//! The shapes that metadata announce: which shapes a tensor may have.

use super::shape::{Shape, format_shape};
use std::fmt;

/// The announced shape of an input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShapeSpec {
    /// Any number of dimensions of any size, of a model that announces no shape. Shown as `[...]`.
    AnyRank,
    /// These dimensions, of which -1 is free. No dimensions at all is a scalar.
    Ranked(Shape),
}

impl ShapeSpec {
    /// Returns the dimensions; `None` if their number is unknown.
    pub fn dimensions(&self) -> Option<&[i64]> {
        match self {
            ShapeSpec::AnyRank => None,
            ShapeSpec::Ranked(dimensions) => Some(dimensions),
        }
    }

    /// Returns the dimensions for a protocol that has no form for an unknown number of them: none,
    /// as for a scalar.
    pub fn on_wire(&self) -> &[i64] {
        self.dimensions().unwrap_or_default()
    }

    /// Returns true for a shape without dimensions. A shape of unknown rank is none.
    pub fn is_scalar(&self) -> bool {
        self.dimensions().is_some_and(<[i64]>::is_empty)
    }

    /// Returns true if a tensor may have any number of rows.
    pub fn has_free_rows(&self) -> bool {
        self.dimensions().is_none_or(|dimensions| dimensions.first() == Some(&-1))
    }

    /// Returns true if a tensor of this shape fits. A scalar may also come as one element in any
    /// number of dimensions, because clients send it as `[1]` or `[1,1]`, and runtimes take it.
    pub fn accepts(&self, shape: &[i64]) -> bool {
        match self {
            ShapeSpec::AnyRank => true,
            ShapeSpec::Ranked(dimensions) if dimensions.is_empty() => shape.iter().all(|&size| size == 1),
            ShapeSpec::Ranked(dimensions) => {
                dimensions.len() == shape.len()
                    && dimensions.iter().zip(shape).all(|(&want, &got)| want < 0 || want == got)
            }
        }
    }

    /// Returns true if some tensor of this shape is accepted by `wanted`.
    pub fn may_fit(&self, wanted: &ShapeSpec) -> bool {
        let (ShapeSpec::Ranked(given), ShapeSpec::Ranked(wanted)) = (self, wanted) else { return true };
        if wanted.is_empty() {
            return given.iter().all(|&size| size < 0 || size == 1);
        }
        given.len() == wanted.len() && given.iter().zip(wanted).all(|(&a, &b)| a < 0 || b < 0 || a == b)
    }

    /// Returns the shape that both accept: a dimension that is fixed in either stays fixed. `None`
    /// if no shape fits both.
    pub fn narrowed(&self, other: &ShapeSpec) -> Option<ShapeSpec> {
        let (a, b) = match (self, other) {
            (ShapeSpec::AnyRank, known) | (known, ShapeSpec::AnyRank) => return Some(known.clone()),
            (ShapeSpec::Ranked(a), ShapeSpec::Ranked(b)) => (a, b),
        };
        if a.is_empty() != b.is_empty() {
            let (scalar, shape) = if a.is_empty() { (self, b) } else { (other, a) };
            let ones: Shape = shape.iter().map(|size| size.abs()).collect();
            return scalar.accepts(&ones).then_some(ShapeSpec::Ranked(ones));
        }
        let dimension = |(&a, &b): (&i64, &i64)| if a < 0 { b } else { a };
        self.may_fit(other).then(|| a.iter().zip(b).map(dimension).collect::<Shape>().into())
    }

    /// Returns the shape that covers both: dimensions that differ become free. `None` if their
    /// ranks differ.
    pub fn widened(&self, other: &ShapeSpec) -> Option<ShapeSpec> {
        let (ShapeSpec::Ranked(a), ShapeSpec::Ranked(b)) = (self, other) else {
            return Some(ShapeSpec::AnyRank);
        };
        let dimension = |(&a, &b): (&i64, &i64)| if a == b { a } else { -1 };
        (a.len() == b.len()).then(|| a.iter().zip(b).map(dimension).collect::<Shape>().into())
    }

    /// Sets the first dimension to `rows`; a scalar gets one. An unknown rank stays unknown.
    pub fn with_rows(&self, rows: i64) -> ShapeSpec {
        match self {
            ShapeSpec::AnyRank => ShapeSpec::AnyRank,
            ShapeSpec::Ranked(dimensions) => {
                let rest = dimensions.iter().skip(1).copied();
                std::iter::once(rows).chain(rest).collect::<Shape>().into()
            }
        }
    }
}

impl fmt::Display for ShapeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapeSpec::AnyRank => f.write_str("[...]"),
            ShapeSpec::Ranked(dimensions) => f.write_str(&format_shape(dimensions)),
        }
    }
}

impl From<Shape> for ShapeSpec {
    fn from(dimensions: Shape) -> Self {
        ShapeSpec::Ranked(dimensions)
    }
}

impl From<&[i64]> for ShapeSpec {
    fn from(dimensions: &[i64]) -> Self {
        ShapeSpec::Ranked(dimensions.into())
    }
}

#[cfg(test)]
mod tests {
    use super::ShapeSpec::AnyRank;
    use super::*;

    fn ranked(dimensions: &[i64]) -> ShapeSpec {
        dimensions.into()
    }

    #[test]
    fn an_unknown_rank_accepts_every_shape_and_a_scalar_one_element() {
        for shape in [&[][..], &[3], &[0], &[2, 0, 4], &[1; 16]] {
            assert!(AnyRank.accepts(shape), "{shape:?}");
            assert_eq!(ranked(&[]).accepts(shape), shape.iter().all(|&size| size == 1), "{shape:?}");
        }
        assert!(ranked(&[-1, 3]).accepts(&[2, 3]) && !ranked(&[-1, 3]).accepts(&[3]));
        assert!(!ranked(&[1]).accepts(&[]) && !ranked(&[1]).accepts(&[1, 1]));
        assert_eq!((AnyRank.to_string(), ranked(&[-1, 3]).to_string()), ("[...]".into(), "[-1,3]".into()));
        assert_eq!((AnyRank.on_wire(), ranked(&[2]).on_wire()), (&[][..], &[2][..]));
    }

    #[test]
    fn shapes_of_a_graph_are_combined() {
        let (scalar, row, free) = (ranked(&[]), ranked(&[1, 4]), ranked(&[-1, -1]));
        for shape in [&scalar, &row, &free] {
            assert!(AnyRank.may_fit(shape) && shape.may_fit(&AnyRank));
            assert_eq!(AnyRank.narrowed(shape).as_ref(), Some(shape));
            assert_eq!(shape.narrowed(&AnyRank).as_ref(), Some(shape));
            assert_eq!(shape.widened(&AnyRank), Some(AnyRank));
            assert_eq!(shape.narrowed(shape).as_ref(), Some(shape));
        }
        assert!(free.may_fit(&scalar) && !row.may_fit(&scalar) && !scalar.may_fit(&free));
        assert_eq!(row.narrowed(&free), Some(row.clone()));
        assert_eq!(
            (scalar.narrowed(&free), free.narrowed(&scalar)),
            (Some(ranked(&[1, 1])), Some(ranked(&[1, 1])))
        );
        assert_eq!((scalar.narrowed(&row), row.narrowed(&ranked(&[1]))), (None, None));
        assert_eq!(row.widened(&ranked(&[2, 4])), Some(ranked(&[-1, 4])));
        assert_eq!(row.widened(&scalar), None);
        assert_eq!((AnyRank.with_rows(-1), scalar.with_rows(1)), (AnyRank, ranked(&[1])));
        assert!(
            AnyRank.has_free_rows()
                && free.has_free_rows()
                && !row.has_free_rows()
                && !scalar.has_free_rows()
        );
    }
}
