//! What the path of a gRPC call names. A path is parsed once, here.

use crate::access::Verb;
use crate::proto::inference::grpc_inference_service_server::SERVICE_NAME as INFERENCE;
use tonic_health::pb::health_server::SERVICE_NAME as HEALTH;

/// The prefix of the services whose calls may stay open for as long as their clients like.
pub(super) const REFLECTION: &str = "grpc.reflection.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcEndpoint<'a> {
    ModelInfer,
    ModelStreamInfer,
    /// A method of a service that tonic serves, if there is one of this name. `is_probe` says
    /// whether the call is a health check that ends by itself.
    Service {
        name: &'a str,
        is_probe: bool,
    },
    /// No path of a method.
    Malformed,
}

impl<'a> GrpcEndpoint<'a> {
    pub fn parse(path: &'a str) -> Self {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return GrpcEndpoint::Malformed;
        };
        match (service, method) {
            (INFERENCE, "ModelInfer") => GrpcEndpoint::ModelInfer,
            (INFERENCE, "ModelStreamInfer") => GrpcEndpoint::ModelStreamInfer,
            (INFERENCE, "ServerLive" | "ServerReady") | (HEALTH, "Check") => {
                GrpcEndpoint::Service { name: service, is_probe: true }
            }
            _ => GrpcEndpoint::Service { name: service, is_probe: false },
        }
    }

    /// Returns what the caller of a path must be allowed to do; `None` if everyone may.
    pub fn verb(path: &str) -> Option<Verb> {
        let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/'))?;
        match (service, method) {
            (HEALTH, _) | (INFERENCE, "ServerLive" | "ServerReady") => None,
            (INFERENCE, "ModelInfer" | "ModelStreamInfer") => Some(Verb::Predict),
            (INFERENCE, "RepositoryModelLoad" | "RepositoryModelUnload") => Some(Verb::Load),
            _ => Some(Verb::Read),
        }
    }

    pub fn is_probe(&self) -> bool {
        matches!(self, GrpcEndpoint::Service { is_probe: true, .. })
    }

    /// Whether the call is served before the models are loaded: it asks for the readiness, waits
    /// for it, or asks which services there are.
    pub fn is_served_early(&self) -> bool {
        match *self {
            GrpcEndpoint::Service { name, is_probe } => {
                is_probe || name == HEALTH || name.starts_with(REFLECTION)
            }
            GrpcEndpoint::ModelInfer | GrpcEndpoint::ModelStreamInfer | GrpcEndpoint::Malformed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GrpcEndpoint::{self, Malformed, ModelInfer, ModelStreamInfer, Service};

    #[test]
    fn only_health_checks_that_end_are_probes() {
        let probe = |name| Service { name, is_probe: true };
        let other = |name| Service { name, is_probe: false };
        for (path, expected) in [
            ("/inference.GRPCInferenceService/ModelInfer", ModelInfer),
            ("/inference.GRPCInferenceService/ModelStreamInfer", ModelStreamInfer),
            ("/inference.GRPCInferenceService/ServerLive", probe("inference.GRPCInferenceService")),
            ("/inference.GRPCInferenceService/ServerReady", probe("inference.GRPCInferenceService")),
            ("/inference.GRPCInferenceService/ModelReady", other("inference.GRPCInferenceService")),
            ("/grpc.health.v1.Health/Check", probe("grpc.health.v1.Health")),
            ("/grpc.health.v1.Health/Watch", other("grpc.health.v1.Health")),
            ("/nobody.Knows/Check", other("nobody.Knows")),
            ("/v2", Malformed),
            ("", Malformed),
        ] {
            assert_eq!(GrpcEndpoint::parse(path), expected, "{path}");
        }
    }
}
