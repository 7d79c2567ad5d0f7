//! What the path of a request to the public HTTP listener names. A path is parsed once, here;
//! access rules, probes and dispatch match on the result.

use super::api::Api;
use super::cross_site::Sensitivity;
use super::oip::endpoint::OipEndpoint;
use super::openapi;
use super::plain::jobs::endpoint::JobsEndpoint;
use crate::access::Verb;
use crate::fixed_routes::PredictRoute;
use hyper::HeaderMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    Predict(PredictEndpoint<'a>),
    /// `/predict/stream`
    PredictStream,
    /// `/health`
    Health,
    /// `/ready`
    Ready,
    /// `/metrics`
    Metrics,
    /// `/models`
    Models,
    /// `/openapi.json`
    OpenApi,
    Jobs(JobsEndpoint<'a>),
    Oip(OipEndpoint<'a>),
    /// No route of any interface. The sensitivity is that of the routes under the same prefix.
    Unknown(Sensitivity),
}

/// The form in which a prediction is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PredictEndpoint<'a> {
    /// `/predict`
    Single,
    /// `/predict/batch`
    Batch,
    /// `/predict/<model>`: the body is the input. The name is still percent-encoded.
    Model(&'a str),
}

impl<'a> Endpoint<'a> {
    pub fn parse(path: &'a str) -> Self {
        match path {
            "/predict" => return Endpoint::Predict(PredictEndpoint::Single),
            "/health" => return Endpoint::Health,
            "/ready" => return Endpoint::Ready,
            "/metrics" => return Endpoint::Metrics,
            "/models" => return Endpoint::Models,
            openapi::PATH => return Endpoint::OpenApi,
            _ => {}
        }
        if let Some(rest) = path.strip_prefix("/predict/") {
            return Self::of_predict(rest);
        }
        match JobsEndpoint::parse(path) {
            Some(jobs) => Endpoint::Jobs(jobs),
            None if Api::of(path) == Api::Oip => Endpoint::Oip(OipEndpoint::parse(path)),
            None => Endpoint::Unknown(Sensitivity::Reads),
        }
    }

    /// Parses the rest of a path after `/predict/`.
    fn of_predict(rest: &'a str) -> Self {
        let (segment, more) =
            rest.split_once('/').map_or((rest, None), |(segment, more)| (segment, Some(more)));
        match (PredictRoute::parse(segment), more) {
            (Some(PredictRoute::Batch), None) => Endpoint::Predict(PredictEndpoint::Batch),
            (Some(PredictRoute::Stream), None) => Endpoint::PredictStream,
            (Some(PredictRoute::Async), more) => {
                JobsEndpoint::submission(more).map_or(Endpoint::Unknown(Sensitivity::Open), Endpoint::Jobs)
            }
            (None, None) => Endpoint::Predict(PredictEndpoint::Model(segment)),
            (Some(PredictRoute::Batch | PredictRoute::Stream) | None, Some(_)) => {
                Endpoint::Unknown(Sensitivity::Open)
            }
        }
    }

    /// The interface whose form errors have.
    pub fn api(&self) -> Api {
        match self {
            Endpoint::Oip(_) => Api::Oip,
            _ => Api::Plain,
        }
    }

    /// Whether this is a health check or the metrics, which are served beyond the limit of
    /// connections.
    pub fn is_probe(&self) -> bool {
        matches!(
            self,
            Endpoint::Health
                | Endpoint::Ready
                | Endpoint::Metrics
                | Endpoint::Oip(OipEndpoint::Live | OipEndpoint::Ready)
        )
    }

    /// Returns what a caller must be allowed to do; `None` if everyone may.
    pub fn verb(&self, headers: &HeaderMap) -> Option<Verb> {
        match self {
            Endpoint::Predict(_) | Endpoint::PredictStream => Some(Verb::Predict),
            Endpoint::Health | Endpoint::Ready | Endpoint::OpenApi | Endpoint::Unknown(_) => None,
            Endpoint::Metrics => Some(Verb::Metrics),
            Endpoint::Models => Some(Verb::Read),
            Endpoint::Jobs(_) => Some(Verb::Jobs),
            Endpoint::Oip(endpoint) => endpoint.verb(headers),
        }
    }

    pub fn sensitivity(&self) -> Sensitivity {
        match self {
            Endpoint::Predict(_) | Endpoint::PredictStream => Sensitivity::Open,
            Endpoint::Health | Endpoint::Ready | Endpoint::Metrics | Endpoint::OpenApi => Sensitivity::Open,
            Endpoint::Models => Sensitivity::Reads,
            Endpoint::Jobs(_) => Sensitivity::Controls,
            Endpoint::Oip(endpoint) => endpoint.sensitivity(),
            Endpoint::Unknown(sensitivity) => *sensitivity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Sensitivity::{Controls, Open, Reads};

    #[test]
    fn paths_have_the_sensitivity_of_their_routes() {
        for (path, expected) in [
            ("/predict", Open),
            ("/predict/batch", Open),
            ("/predict/stream", Open),
            ("/predict/plus", Open),
            ("/predict/a/b", Open),
            ("/health", Open),
            ("/ready", Open),
            ("/metrics", Open),
            ("/v2/health/live", Open),
            ("/v2/health/ready", Open),
            ("/v2/models/m/infer", Open),
            ("/v2/models/m/versions/1/generate_stream", Open),
            ("/v2/models/a/b/c/d/e/f/g/infer", Open),
            ("/models", Reads),
            ("/v2", Reads),
            ("/v2/", Reads),
            ("/v2/health", Reads),
            ("/v2/models/infer", Reads),
            ("/v2/models/m", Reads),
            ("/v2/models/m/config", Reads),
            ("/v2/models/stats", Reads),
            ("/v2/models/m/trace/setting", Reads),
            ("/v2/cudasharedmemory/status", Reads),
            ("/v2/models/m/ready/", Reads),
            ("/", Reads),
            ("/base/v2/models/m/infer", Reads),
            ("/predictions", Reads),
            ("/predict/async", Controls),
            ("/predict/async/batch", Controls),
            ("/jobs", Controls),
            ("/jobs/", Controls),
            ("/jobs/1/cancel", Controls),
            ("/jobs/1/2/3", Controls),
            ("/v2/repository", Controls),
            ("/v2/repository/index", Controls),
            ("/v2/repository/models/m/load", Controls),
            ("/v2/repository/other/index", Controls),
            ("/v2/repository/anything/else", Controls),
        ] {
            assert_eq!(Endpoint::parse(path).sensitivity(), expected, "{path}");
        }
    }

    #[test]
    fn a_model_of_a_path_is_one_segment() {
        let model = |path| match Endpoint::parse(path) {
            Endpoint::Predict(PredictEndpoint::Model(model)) => Some(model),
            _ => None,
        };
        assert_eq!(model("/predict/plus%3A1"), Some("plus%3A1"));
        assert_eq!(model("/predict/"), Some(""));
        assert_eq!(model("/predict/async"), None);
        assert_eq!(model("/predict/a/b"), None);
    }
}
