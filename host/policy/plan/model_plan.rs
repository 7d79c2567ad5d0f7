//! A model of a plan: what it is made of, and where it runs.

use crate::executor::Batching;
use crate::policy::files::File;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlan {
    pub source: SourcePlan,
    pub executor: Arc<str>,
    pub transformer: Option<Arc<str>>,
    pub timeout: Option<Duration>,
    pub batching: Option<Batching>,
    /// Files of labels, by output.
    pub labels: BTreeMap<Arc<str>, File>,
    pub idempotent: bool,
    pub checks: Vec<CheckPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourcePlan {
    Onnx {
        file: File,
        external: Vec<File>,
    },
    Plugin(Arc<str>),
    /// With a reference file, the remote's model must match it.
    Remote {
        name: String,
        version: Option<String>,
        reference: Option<(File, Vec<File>)>,
    },
    Pipeline(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct CheckPlan {
    pub file: File,
    pub tolerance: f64,
}
