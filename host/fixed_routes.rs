//! The routes whose last segment is where similar paths have the name of a model.
//!
//! The server recognizes these segments only by the functions here, and the policy refuses them as
//! names of models, so a new route of this kind is reserved as soon as it exists.

/// The routes beside `/predict/<model>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictRoute {
    /// `/predict/batch`
    Batch,
    /// `/predict/stream`
    Stream,
    /// `/predict/async`
    Async,
}

impl PredictRoute {
    const ALL: [Self; 3] = [Self::Batch, Self::Stream, Self::Async];

    const fn segment(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Stream => "stream",
            Self::Async => "async",
        }
    }

    /// Recognizes the segment after `/predict/`; `None` is a model.
    pub fn parse(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.segment() == segment)
    }
}

/// The routes beside `/v2/models/<model>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelsRoute {
    /// `/v2/models/stats`
    Stats,
}

impl ModelsRoute {
    const ALL: [Self; 1] = [Self::Stats];

    const fn segment(self) -> &'static str {
        match self {
            Self::Stats => "stats",
        }
    }

    /// Recognizes the segment after `/v2/models/`; `None` is a model.
    pub fn parse(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.segment() == segment)
    }
}

/// Returns the path of the route that hides a model of this name.
pub fn route_at(name: &str) -> Option<String> {
    let predict = PredictRoute::parse(name).map(|route| format!("/predict/{}", route.segment()));
    predict.or_else(|| ModelsRoute::parse(name).map(|route| format!("/v2/models/{}", route.segment())))
}

/// Whether clients and proxies remove a segment when they normalize a URL.
pub fn vanishes(segment: &str) -> bool {
    matches!(segment, "." | "..")
}
