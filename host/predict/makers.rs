//! Who made the inputs of a run, which decides whose fault a refusal by the model is.

use super::origin::Origin;
use super::tensor::Tensor;
use crate::error::{Error, FaultOwner};
use std::sync::Arc;

/// Who made the inputs of a run. Determined before the run consumes them.
#[derive(Clone, Debug)]
pub enum Makers {
    /// All inputs came from the caller unchanged.
    Caller,
    /// At least one input was made by this plugin.
    Plugin(Arc<str>),
    Other,
}

impl Makers {
    pub fn of(inputs: &[Tensor]) -> Self {
        if !inputs.is_empty() && inputs.iter().all(Tensor::is_callers) {
            return Makers::Caller;
        }
        let plugin = inputs.iter().find_map(|tensor| match tensor.origin() {
            Origin::Plugin(name) => Some(Arc::clone(name)),
            _ => None,
        });
        plugin.map_or(Makers::Other, Makers::Plugin)
    }

    /// Sets the owner of an error about these inputs.
    pub fn explain(&self, error: Error) -> Error {
        if !error.kind().is_about_request() || error.owner() != FaultOwner::Host {
            return error;
        }
        match self {
            Makers::Caller => error.owned_by(FaultOwner::Caller),
            Makers::Plugin(name) => error.owned_by(FaultOwner::Maker).plugin(&**name),
            Makers::Other => error,
        }
    }
}

/// Sets the owner of an error of `check_inputs`: the maker of the tensor that it names. A missing
/// tensor is the fault of the code that chose the inputs, which is not decided here.
pub fn explain_check(error: Error, inputs: &[Tensor]) -> Error {
    let named = error.field_name().and_then(|name| inputs.iter().find(|tensor| tensor.name() == name));
    match named {
        Some(tensor) => Makers::of(std::slice::from_ref(tensor)).explain(error),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn tensor(name: &str, origin: Origin) -> Tensor {
        let data = vec![0; 4].into();
        Tensor::new(name, super::super::Datatype::Fp32, [1].as_slice().into(), data).unwrap().made_by(origin)
    }

    #[test]
    fn a_refusal_is_the_fault_of_who_made_the_tensors() {
        let (caller, plugin) = (|| tensor("x", Origin::Caller), || tensor("y", Origin::Plugin("p".into())));
        let explained = |inputs: &[Tensor]| {
            let error = Makers::of(inputs).explain(Error::invalid("no")).settled();
            (error.kind(), error.plugin_name().map(str::to_owned))
        };
        assert_eq!(explained(&[caller(), caller()]), (Kind::InvalidInput, None));
        assert_eq!(explained(&[caller(), plugin()]), (Kind::Failed, Some("p".into())));
        assert_eq!(explained(&[caller().renamed("z")]), (Kind::InvalidInput, None));
        let other = Makers::of(&[tensor("x", Origin::Model)]).explain(Error::invalid("no"));
        assert_eq!(other.returned_by("q").kind(), Kind::Failed);
        let chosen = Error::invalid("no").owned_by(FaultOwner::Plugin);
        assert_eq!(Makers::of(&[plugin()]).explain(chosen).returned_by("q").kind(), Kind::InvalidInput);
        let callers = Makers::of(&[caller()]).explain(Error::invalid("no"));
        assert_eq!(callers.returned_by("q").kind(), Kind::InvalidInput);
    }
}
