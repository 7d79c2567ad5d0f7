//! Datatypes and shapes along the edges of a graph.

use crate::predict::{Metadata, TensorSpec};

/// `FP32[-1,3]`
pub(super) fn shown(spec: &TensorSpec) -> String {
    format!("{}{}", spec.datatype.as_str(), spec.shape)
}

/// Returns why a tensor of `given` can never be one of `wanted`; `None` if it can.
pub(super) fn mismatch(given: &TensorSpec, wanted: &TensorSpec) -> Option<String> {
    let fits = given.datatype == wanted.datatype && given.shape.may_fit(&wanted.shape);
    (!fits).then(|| format!("{} does not fit {}", shown(given), shown(wanted)))
}

/// Returns the spec that fits both: a dimension that is fixed in either stays fixed.
pub(super) fn narrowed(a: &TensorSpec, b: &TensorSpec) -> Option<TensorSpec> {
    let shape = a.shape.narrowed(&b.shape).filter(|_| a.datatype == b.datatype)?;
    Some(TensorSpec { shape, optional: a.optional && b.optional, ..a.clone() })
}

/// Returns the spec that covers both: dimensions that differ become free. `None` if no shape covers
/// both.
pub(super) fn widened(a: &TensorSpec, b: &TensorSpec) -> Option<TensorSpec> {
    let shape = a.shape.widened(&b.shape).filter(|_| a.datatype == b.datatype)?;
    Some(TensorSpec { shape, ..a.clone() })
}

/// Sets the first dimension to `rows`; a scalar gets one.
pub(super) fn with_rows(spec: &TensorSpec, rows: i64) -> TensorSpec {
    TensorSpec { shape: spec.shape.with_rows(rows), ..spec.clone() }
}

/// Returns the metadata that all versions of a model have in common, or how two of them differ.
pub(super) fn joined(versions: &[(std::sync::Arc<str>, Metadata)]) -> Result<Metadata, String> {
    let Some(((first, base), rest)) = versions.split_first() else { return Ok(Metadata::default()) };
    let mut joined = base.clone();
    for (version, other) in rest {
        let differ = |what: String| format!("its versions {first} and {version} differ: {what}");
        if other.streaming != base.streaming {
            return Err(differ("only one returns any number of responses".to_owned()));
        }
        for (what, ours, theirs) in
            [("input", &mut joined.inputs, &other.inputs), ("output", &mut joined.outputs, &other.outputs)]
        {
            let required = |spec: &&TensorSpec| what == "output" || !spec.optional;
            let unknown =
                theirs.iter().filter(required).find(|spec| ours.iter().all(|our| our.name != spec.name));
            if let Some(spec) = unknown {
                return Err(differ(format!("{what} \"{}\"", spec.name)));
            }
            for our in ours.iter_mut() {
                let Some(their) = theirs.iter().find(|spec| spec.name == our.name) else {
                    return Err(differ(format!("{what} \"{}\"", our.name)));
                };
                let both = if what == "input" { narrowed(our, their) } else { widened(our, their) };
                let both = both.ok_or_else(|| differ(format!("{what} \"{}\"", our.name)))?;
                *our = TensorSpec { optional: our.optional && their.optional, ..both };
            }
        }
    }
    Ok(joined)
}
