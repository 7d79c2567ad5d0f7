//! Fetches the description of a remote model: its inputs and outputs, and whether it streams.

use super::link::Link;
use super::status::{Fault, fault};
use crate::error::{Error, Kind, Result};
use crate::predict::{Datatype, MAX_RANK, Metadata, Shape, ShapeSpec, TensorSpec};
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{ModelConfig, ModelConfigRequest, ModelMetadataRequest};
use tonic::{Code, Status};

pub(super) struct RemoteDescription {
    /// The requested version, or the only one.
    pub version: String,
    pub metadata: Metadata,
}

/// Fetches the description of a model. Without `version`, the remote must have exactly one: the
/// remote must not choose among several.
pub(super) async fn fetch(link: &Link, name: &str, version: Option<&str>) -> Result<RemoteDescription> {
    let wanted = version.unwrap_or_default().to_owned();
    let request = ModelMetadataRequest { name: name.to_owned(), version: wanted.clone() };
    let answer =
        link.control_client().model_metadata(request).await.map_err(|status| failed(link, name, &status))?;
    let answer = answer.into_inner();
    let version = match (version, &answer.versions[..]) {
        (Some(_), _) => wanted,
        (None, [only]) => only.clone(),
        // The server has no versions.
        (None, []) => String::new(),
        (None, several) => {
            let several = several.join(", ");
            return Err(Error::invalid(format!(
                "{} has the versions {several} of the model \"{name}\": name one, as in remote = {{ name = \
                 \"{name}\", version = \"{}\" }}",
                link.named(),
                answer.versions[0]
            )));
        }
    };
    let config = config(link, name, &version).await?;
    let is_optional = |name: &str| config.input.iter().any(|input| input.name == name && input.optional);
    let specs = |what: &str, tensors: &[TensorMetadata]| {
        let spec = |tensor| {
            spec(tensor, is_optional)
                .map_err(|error| error.context(format!("{}: model \"{name}\": {what}", link.named())))
        };
        tensors.iter().map(spec).collect::<Result<Vec<_>>>()
    };
    let streaming = config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled);
    let metadata = Metadata {
        inputs: specs("input", &answer.inputs)?,
        outputs: specs("output", &answer.outputs)?,
        streaming,
    };
    Ok(RemoteDescription { version, metadata })
}

/// Fetches the configuration of a model. A server without this extension of the protocol has no
/// streaming models and no optional inputs, so the default configuration describes it.
async fn config(link: &Link, name: &str, version: &str) -> Result<ModelConfig> {
    let request = ModelConfigRequest { name: name.to_owned(), version: version.to_owned() };
    match link.control_client().model_config(request).await {
        Ok(answer) => Ok(answer.into_inner().config.unwrap_or_default()),
        Err(status) if status.code() == Code::Unimplemented => Ok(ModelConfig::default()),
        Err(status) => Err(failed(link, name, &status)),
    }
}

fn failed(link: &Link, name: &str, status: &Status) -> Error {
    match fault(status) {
        Fault::Broken(why) => {
            let hint = match why.contains("certificate") {
                true => {
                    "tls.ca has not signed it, or tls.domain is not its name (by default: the certificates that this machine \
                     trusts, and the name in url)"
                }
                false => "start it, or correct url and tls of the executor",
            };
            Error::unavailable(format!("{} cannot be reached: {why}; {hint}", link.named()))
        }
        // The manifest names a model that the remote does not have.
        Fault::Refused(error) if status.code() == Code::NotFound => {
            Error::new(Kind::NotFound, error.message()).context(format!("{}: model \"{name}\"", link.named()))
        }
        Fault::Refused(error) => error.context(format!("{}: model \"{name}\"", link.named())),
    }
}

fn spec(tensor: &TensorMetadata, is_optional: impl Fn(&str) -> bool) -> Result<TensorSpec> {
    let TensorMetadata { name, datatype, shape } = tensor;
    let datatype = Datatype::parse(datatype).ok_or_else(|| {
        Error::unsupported(format!("\"{name}\" has the datatype {datatype}, which is not supported"))
    })?;
    if shape.len() > MAX_RANK {
        let rank = shape.len();
        return Err(Error::unsupported(format!(
            "\"{name}\" has {rank} dimensions; at most {MAX_RANK} are supported"
        )));
    }
    // The protocol has one form for scalars and for an unknown rank. The remote checks the tensors.
    let shape = match shape[..] {
        [] => ShapeSpec::AnyRank,
        _ => shape.iter().map(|&dimension| dimension.max(-1)).collect::<Shape>().into(),
    };
    Ok(TensorSpec { optional: is_optional(name), name: name.as_str().into(), datatype, shape })
}
