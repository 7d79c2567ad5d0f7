//! What a path of the Open Inference Protocol names. Names in it are still percent-encoded.

use super::preference;
use crate::access::Verb;
use crate::error::Result;
use crate::fixed_routes::ModelsRoute;
use crate::server::cross_site::Sensitivity;
use crate::server::http;
use hyper::HeaderMap;
use smallvec::SmallVec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum OipEndpoint<'a> {
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    Model(ModelPath<'a>, ModelAction),
    Control(ControlEndpoint<'a>),
    Unsupported(UnsupportedEndpoint<'a>),
    /// No route. The sensitivity is that of the routes that the path resembles.
    Unknown(Sensitivity),
}

/// `/v2/models/{model}[/versions/{version}]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct ModelPath<'a> {
    pub model: &'a str,
    pub version: Option<&'a str>,
}

/// The rest of a path after its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum ModelAction {
    /// Nothing follows.
    Metadata,
    /// `/ready`
    Ready,
    /// `/infer`
    Infer,
    /// `/generate`
    Generate,
    /// `/generate_stream`
    GenerateStream,
}

/// Extensions that inspect and load models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum ControlEndpoint<'a> {
    /// `GET /v2/models/{model}[/versions/{version}]/config`
    Config(ModelPath<'a>),
    /// `GET /v2/models/stats`, `GET /v2/models/{model}[/versions/{version}]/stats`
    Statistics(Option<ModelPath<'a>>),
    /// `POST /v2/repository/index`
    Index,
    /// `POST /v2/repository/models/{model}/load`
    Load(&'a str),
    /// `POST /v2/repository/models/{model}/unload`
    Unload(&'a str),
}

/// Routes of Triton that this host does not offer. `kind` is `system` or `CUDA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum UnsupportedEndpoint<'a> {
    /// `/v2/logging`
    LogSettings,
    /// `/v2/trace/setting`, `/v2/models/{model}/trace/setting`
    TraceSettings,
    /// `/v2/repository/{repository}/…`
    OtherRepository,
    /// `/v2/systemsharedmemory/status`
    SharedMemoryStatus,
    /// `/v2/systemsharedmemory/region/{region}/status`
    RegionStatus { kind: &'static str, region: &'a str },
    /// `/v2/systemsharedmemory[/region/{region}]/unregister`
    Unregister,
    /// `/v2/systemsharedmemory/region/{region}/register`
    Register { kind: &'static str },
}

impl<'a> OipEndpoint<'a> {
    /// Parses a path that is `/v2` or begins with `/v2/`.
    pub fn parse(path: &'a str) -> Self {
        // The path begins with a slash, so that the first segment is empty; the second one is `v2`.
        let segments: SmallVec<[&'a str; 8]> = path.split('/').skip(2).collect();
        Self::of(&segments)
    }

    /// Returns what a caller must be allowed to do; `None` if everyone may.
    pub fn verb(&self, headers: &HeaderMap) -> Option<Verb> {
        Some(match self {
            OipEndpoint::Live | OipEndpoint::Ready | OipEndpoint::Unknown(_) => return None,
            OipEndpoint::Model(_, ModelAction::Infer) if preference::is_async(headers) => Verb::Jobs,
            OipEndpoint::Model(
                _,
                ModelAction::Infer | ModelAction::Generate | ModelAction::GenerateStream,
            ) => Verb::Predict,
            OipEndpoint::Control(ControlEndpoint::Load(_) | ControlEndpoint::Unload(_)) => Verb::Load,
            OipEndpoint::Server
            | OipEndpoint::Model(_, ModelAction::Metadata | ModelAction::Ready)
            | OipEndpoint::Control(_)
            | OipEndpoint::Unsupported(_) => Verb::Read,
        })
    }

    fn of(segments: &[&'a str]) -> Self {
        match *segments {
            [] => OipEndpoint::Server,
            ["health", "live"] => OipEndpoint::Live,
            ["health", "ready"] => OipEndpoint::Ready,
            ["models", model, ref rest @ ..] => match (ModelsRoute::parse(model), rest) {
                (Some(ModelsRoute::Stats), []) => OipEndpoint::Control(ControlEndpoint::Statistics(None)),
                (Some(ModelsRoute::Stats), [_, ..]) | (None, _) => Self::of_model(model, rest),
            },
            ["repository", ref rest @ ..] => Self::of_repository(rest),
            ["logging"] => OipEndpoint::Unsupported(UnsupportedEndpoint::LogSettings),
            ["trace", "setting"] => OipEndpoint::Unsupported(UnsupportedEndpoint::TraceSettings),
            ["systemsharedmemory", ref rest @ ..] => Self::of_shared_memory("system", rest),
            ["cudasharedmemory", ref rest @ ..] => Self::of_shared_memory("CUDA", rest),
            _ => OipEndpoint::Unknown(Sensitivity::Reads),
        }
    }

    fn of_model(model: &'a str, segments: &[&'a str]) -> Self {
        let (path, rest) = match *segments {
            ["versions", version, ref rest @ ..] => (ModelPath { model, version: Some(version) }, rest),
            _ => (ModelPath { model, version: None }, segments),
        };
        match *rest {
            [] => OipEndpoint::Model(path, ModelAction::Metadata),
            ["ready"] => OipEndpoint::Model(path, ModelAction::Ready),
            ["infer"] => OipEndpoint::Model(path, ModelAction::Infer),
            ["generate"] => OipEndpoint::Model(path, ModelAction::Generate),
            ["generate_stream"] => OipEndpoint::Model(path, ModelAction::GenerateStream),
            ["config"] => OipEndpoint::Control(ControlEndpoint::Config(path)),
            ["stats"] => OipEndpoint::Control(ControlEndpoint::Statistics(Some(path))),
            ["trace", "setting"] if path.version.is_none() => {
                OipEndpoint::Unsupported(UnsupportedEndpoint::TraceSettings)
            }
            [.., "ready" | "infer" | "generate" | "generate_stream"] => {
                OipEndpoint::Unknown(Sensitivity::Open)
            }
            _ => OipEndpoint::Unknown(Sensitivity::Reads),
        }
    }

    fn of_repository(segments: &[&'a str]) -> Self {
        match *segments {
            ["index"] => OipEndpoint::Control(ControlEndpoint::Index),
            ["models", model, "load"] => OipEndpoint::Control(ControlEndpoint::Load(model)),
            ["models", model, "unload"] => OipEndpoint::Control(ControlEndpoint::Unload(model)),
            [_, "index"] | [_, "models", _, "load" | "unload"] => {
                OipEndpoint::Unsupported(UnsupportedEndpoint::OtherRepository)
            }
            _ => OipEndpoint::Unknown(Sensitivity::Controls),
        }
    }

    fn of_shared_memory(kind: &'static str, segments: &[&'a str]) -> Self {
        OipEndpoint::Unsupported(match *segments {
            ["status"] => UnsupportedEndpoint::SharedMemoryStatus,
            ["region", region, "status"] => UnsupportedEndpoint::RegionStatus { kind, region },
            ["unregister"] | ["region", _, "unregister"] => UnsupportedEndpoint::Unregister,
            ["region", _, "register"] => UnsupportedEndpoint::Register { kind },
            _ => return OipEndpoint::Unknown(Sensitivity::Reads),
        })
    }

    pub fn sensitivity(&self) -> Sensitivity {
        match self {
            OipEndpoint::Live | OipEndpoint::Ready => Sensitivity::Open,
            OipEndpoint::Server | OipEndpoint::Model(_, ModelAction::Metadata) => Sensitivity::Reads,
            OipEndpoint::Model(..) => Sensitivity::Open,
            OipEndpoint::Control(ControlEndpoint::Config(_) | ControlEndpoint::Statistics(_)) => {
                Sensitivity::Reads
            }
            OipEndpoint::Control(_) => Sensitivity::Controls,
            OipEndpoint::Unsupported(UnsupportedEndpoint::OtherRepository) => Sensitivity::Controls,
            OipEndpoint::Unsupported(_) => Sensitivity::Reads,
            OipEndpoint::Unknown(sensitivity) => *sensitivity,
        }
    }
}

impl ModelPath<'_> {
    /// Returns the names of the model and of its version.
    pub fn decode(&self) -> Result<(String, Option<String>)> {
        Ok((http::decode_segment(self.model)?, self.version.map(http::decode_segment).transpose()?))
    }
}
